// Requests to the server, with the token of the page's address. It is sent as a header, never in an address.

const token = () => new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

/** The answer's JSON, or its bytes as a Blob with `as: "blob"`. Throws Error with the server's words; never ends if its
 *  `signal` gives it up. */
export async function ask(path, { as = "json", ...options } = {}) {
  const headers = { ...options.headers, authorization: `Bearer ${token()}` };
  try {
    const answer = await fetch(path, { ...options, headers, credentials: "omit" });
    if (answer.ok) return await (as === "blob" ? answer.blob() : answer.json());
    let words = `the server answers ${answer.status}`;
    try { words = (await answer.json()).error.message; } catch { /* not ours: a proxy's page */ }
    throw Object.assign(new Error(words), { status: answer.status });
  } catch (error) {
    if (options.signal?.aborted) return new Promise(() => {});
    if (error instanceof TypeError) throw new Error("The server does not answer. Is sg3 view still running?");
    throw error;
  }
}

/** Where the websocket is. */
export function socketAddress() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/api/socket?token=${encodeURIComponent(token())}`;
}
