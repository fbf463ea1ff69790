// Requests to the server, with the token of the page's address. It is sent as a header, never in an address.

const token = () => new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

/** The answer's JSON, or its bytes as a Blob with `as: "blob"`. Throws Error with the server's words. */
export async function ask(path, { as = "json", ...options } = {}) {
  const headers = { ...options.headers, authorization: `Bearer ${token()}` };
  const answer = await fetch(path, { ...options, headers, credentials: "omit" });
  if (!answer.ok) {
    let words = `the server answers ${answer.status}`;
    try { words = (await answer.json()).error.message; } catch { /* not ours: a proxy's page */ }
    throw Object.assign(new Error(words), { status: answer.status });
  }
  return as === "blob" ? answer.blob() : answer.json();
}

/** Where the websocket is. */
export function socketAddress() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/api/socket?token=${encodeURIComponent(token())}`;
}
