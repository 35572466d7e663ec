"use strict";

// Pages work without this file; it adds what moves.
const at = id => document.getElementById(id);

// ask fetches JSON. A session that ended answers 401 with the address to sign in.
async function ask(url, out) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  out.textContent = answer.status + " " + (problem.title || answer.statusText) + " ";
  if (problem.login_url && problem.login_url.startsWith("/")) {
    const link = document.createElement("a");
    link.href = problem.login_url;
    link.textContent = "Sign in again";
    out.append(link);
  }
  return null;
}

function watchToken(box) {
  let exp = Number(box.dataset.exp), id = box.dataset.id, full = 0;
  const show = () => {
    const left = exp - Date.now() / 1000;
    full = Math.max(full, left);
    at("left").textContent = Math.max(0, Math.ceil(left)) + " s";
    at("bar").max = full;
    at("bar").value = Math.max(0, left);
  };
  const poll = async () => {
    if (document.hidden) return;
    const got = await ask("/headers.json", at("state")).catch(() => { at("state").textContent = "no answer"; });
    if (!got || !got.bearer) return;
    at("state").textContent = "";
    if (got.bearer.id === id) return;
    const line = document.createElement("li");
    line.textContent = new Date().toLocaleTimeString() + "  token " + id + " was replaced by " + got.bearer.id;
    at("changes").prepend(line);
    ({ id, exp } = got.bearer);
    at("token").textContent = id;
    at("claims").textContent = got.bearer.claims;
    for (const h of got.headers) { // the other headers are about how this script asked
      const cell = document.querySelector('.ours [data-header="' + CSS.escape(h.name) + '"]');
      if (cell) cell.textContent = h.values.join("\n");
    }
    show();
  };
  show();
  setInterval(show, 500);
  // Every five seconds, or more often when tokens live shorter than half a minute.
  const again = async () => {
    await poll();
    setTimeout(again, 1000 * Math.min(5, Math.max(1, full / 6)));
  };
  setTimeout(again, 1000);
}

function live() {
  at("fetch").addEventListener("click", async () => {
    const got = await ask("/time", at("fetched")).catch(() => { at("fetched").textContent = "no answer"; });
    if (got) at("fetched").textContent = got.time;
  });

  const clock = new EventSource("/clock");
  clock.onmessage = e => { at("clock").textContent = e.data; };
  clock.onerror = () => { at("clock").textContent = clock.readyState === EventSource.CLOSED ? "closed" : "connecting again …"; };

  let socket;
  const connect = () => {
    socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/echo");
    socket.onopen = () => { at("socket").textContent = "open"; };
    socket.onclose = e => { at("socket").textContent = "closed (" + e.code + ")"; };
    socket.onmessage = e => { at("echoed").textContent = e.data; };
  };
  connect();
  at("say").addEventListener("submit", e => {
    e.preventDefault();
    const text = at("message").value;
    if (socket.readyState === WebSocket.OPEN) return socket.send(text);
    connect();
    socket.addEventListener("open", () => socket.send(text), { once: true });
  });
}

if (at("bearer")) watchToken(at("bearer"));
if (at("clock")) live();
