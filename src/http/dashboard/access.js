// Asking the service. Where it wants to know who asks, the page asks for a token first and keeps it while
// its tab is open. It goes into a header, never into an address.

import { find } from "./event.js";

const KEY = "event-aggregator-token";
const form = find("access-form");
const field = find("access-token");

let wanted = null;

/** As fetch, but who asks is known. `patience` is how many milliseconds an answer may take. */
export async function ask(path, { signal, patience } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const signals = [signal, patience && AbortSignal.timeout(patience)].filter(Boolean);
    const answer = await fetch(path, { headers, signal: AbortSignal.any(signals) });
    if (answer.status !== 401) return answer;
    await another(token);
  }
}

/** Waits for another token than the one that was refused, if there was one. */
async function another(refused) {
  // Meanwhile somebody gave one, or was told that this one is wrong.
  if (sessionStorage.getItem(KEY) !== refused) return;
  sessionStorage.removeItem(KEY);
  if (!wanted) {
    wanted = Promise.withResolvers();
    offer(refused ? "That token is not valid here." : "This service wants to know who you are.");
    field.focus();
    find("state").dataset.state = "wait";
    find("state").textContent = "locked";
  }
  await wanted.promise;
}

/** Lets people give a token, and says why. */
export function offer(why) {
  find("access").hidden = false;
  find("access-said").textContent = `${why} A token is kept in this tab until you close it.`;
}

/** The token is good for what the page shows. */
export function withdraw() {
  find("access").hidden = !wanted;
}

form.addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const token = field.value.trim();
  field.value = "";
  if (!/^[!-~]+$/.test(token)) return offer("That is no token.");
  sessionStorage.setItem(KEY, token);
  find("access").hidden = true;
  wanted?.resolve();
  wanted = null;
});
