// Events as JSON text. Payloads are never parsed, because JavaScript numbers cannot represent all
// JSON numbers: they are shown as the text that the service sent.

/** Parses the text of an event. The payload remains text. */
export function parseEvent(text) {
  // Quotes within strings are escaped, so topic and event_id cannot contain the first marker. The
  // payload can contain the second one, but the last occurrence is after the payload.
  const payload = text.indexOf(',"payload":');
  const rest = text.lastIndexOf(',"received_at":');
  const fields = JSON.parse(text.slice(0, payload) + text.slice(rest));
  return { ...fields, payload: text.slice(payload + 11, rest) };
}

/** Splits the text of an array into the texts of its objects. */
export function splitArray(array) {
  const texts = [];
  let depth = 0, start = 0, quoted = false;
  for (let index = 0; index < array.length; index++) {
    const character = array[index];
    if (quoted) {
      if (character === "\\") index++;
      else if (character === '"') quoted = false;
    } else if (character === '"') {
      quoted = true;
    } else if (character === "{" || character === "[") {
      if (++depth === 2) start = index;
    } else if (character === "}" || character === "]") {
      if (--depth === 1) texts.push(array.slice(start, index + 1));
    }
  }
  return texts;
}

/** Creates an element with a class and a text. Event data is added to the page only as text, never as HTML. */
export function element(name, className = "", text = "") {
  const created = document.createElement(name);
  created.className = className;
  created.textContent = text;
  return created;
}

/** The element of the page with an id. */
export const find = (id) => document.getElementById(id);

/** Formats an integer with thousands separators. */
export const formatCount = (number) => number.toLocaleString("en");

/** Truncates a text to a length. */
export const truncate = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);
