// Events as the service writes them, read without touching their payload: a number of JavaScript
// would not hold what a payload may say, so payloads stay the text that came.

/** The fields of an event and the exact text of its payload, from the text of the event. */
export function read(text) {
  // A quote inside a name is escaped, so neither mark can be in one; of what is in the payload, the
  // last mark comes later.
  const payload = text.indexOf(',"payload":');
  const rest = text.lastIndexOf(',"received_at":');
  const fields = JSON.parse(text.slice(0, payload) + text.slice(rest));
  return { ...fields, payload: text.slice(payload + 11, rest) };
}

/** The texts of the objects in the text of an array. */
export function split(array) {
  const texts = [];
  let depth = 0, start = 0, quoted = false;
  for (let at = 0; at < array.length; at++) {
    const sign = array[at];
    if (quoted) {
      if (sign === "\\") at++;
      else if (sign === '"') quoted = false;
    } else if (sign === '"') {
      quoted = true;
    } else if (sign === "{" || sign === "[") {
      if (++depth === 2) start = at;
    } else if (sign === "}" || sign === "]") {
      if (--depth === 1) texts.push(array.slice(start, at + 1));
    }
  }
  return texts;
}

/** An element with a class and a text. Data goes into the page in no other way than as text. */
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** The element of the page with an id. */
export const find = (id) => document.getElementById(id);

/** A whole number, with its thousands apart. */
export const whole = (number) => number.toLocaleString("en");

/** `text`, or its beginning if it is longer. */
export const cut = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);
