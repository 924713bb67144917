// Exchanges the token after the # of a login address for a key, once, and opens the status page with it. Browsers do
// not send the part after the #; it is removed from the address before anything else is done.

const PATIENCE_MS = 10_000;
const [TRIES, PAUSE_MS] = [5, 1_000];
const KEY = "tickwire-key";
const $ = (id) => document.getElementById(id);

function fail(text) {
  $("notice").className = "notice bad";
  $("notice").textContent = text;
  $("other").hidden = false;
}

const ask = (token) => fetch("/v1/console/sessions", {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }),
  cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
});

async function exchange(token) {
  let answer = await ask(token);
  // The database is unavailable for a moment: the token has not been used.
  for (let tries = 1; answer.status === 503 && tries < TRIES; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    answer = await ask(token);
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) return fail(found.detail ?? `The gateway answered with status ${answer.status}.`);
  sessionStorage.setItem(KEY, found.key);
  return location.replace("/console/status");
}

async function begin() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (!token) return fail("A login address has a token after its #. Print one on the host of the gateway: make login");
  try {
    await exchange(token);
  } catch {
    fail("The gateway did not answer. The login address may still be good: open it again.");
  }
}

window.addEventListener("hashchange", begin);
// A browser may prerender a page before anybody opens it: that must not use the address.
if (document.prerendering) document.addEventListener("prerenderingchange", begin, { once: true });
else begin();
