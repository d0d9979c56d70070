// Requests to the service. If the service requires a token, the page shows a form for it and keeps
// the token until the tab is closed. The token is sent in a header, never in a URL.

import { find } from "./event.js";

const KEY = "event-aggregator-token";
const form = find("access-form");
const field = find("access-token");

/** Resolves when the user submits a token; null unless a request waits for one. */
let pendingToken = null;

/** Like fetch, with the token of the user. `timeout` is in milliseconds. */
export async function fetchWithToken(path, { signal, timeout } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const signals = [signal, timeout && AbortSignal.timeout(timeout)].filter(Boolean);
    const response = await fetch(path, { headers, signal: AbortSignal.any(signals) });
    if (response.status !== 401) return response;
    await requestToken(token);
  }
}

/** Waits for a new token after the service rejected `rejected`, which is null if none was sent. */
async function requestToken(rejected) {
  // Another request has removed the token or received a new one in the meantime.
  if (sessionStorage.getItem(KEY) !== rejected) return;
  sessionStorage.removeItem(KEY);
  if (!pendingToken) {
    pendingToken = Promise.withResolvers();
    showTokenForm(rejected ? "This token is not valid." : "This service requires a token.");
    field.focus();
    find("state").dataset.state = "wait";
    find("state").textContent = "locked";
  }
  await pendingToken.promise;
}

/** Shows the token form with a message. */
export function showTokenForm(message) {
  find("access").hidden = false;
  find("access-said").textContent = `${message} The token is kept until you close this tab.`;
}

/** Hides the token form, unless a request waits for a token. */
export function hideTokenForm() {
  find("access").hidden = !pendingToken;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = field.value.trim();
  field.value = "";
  if (!/^[!-~]+$/.test(token)) return showTokenForm("A token consists of printable ASCII characters without spaces.");
  sessionStorage.setItem(KEY, token);
  find("access").hidden = true;
  pendingToken?.resolve();
  pendingToken = null;
});
