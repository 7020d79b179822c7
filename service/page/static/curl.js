// The request as a curl command for a POSIX shell or zsh.

/** Quotes any text as one shell word: within '…', only ' is special. */
export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Quotes a file name for -F name=@"…" of curl, where \ and " are escaped with \. */
const formName = (name) => `image=@"${name.replace(/[\\"]/g, "\\$&")}"`;

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary);
}

/**
 * Returns the command. It refers to a file of the user by name and runs in its folder. A sample or a pasted image is
 * embedded in a here-document, which the shell does not interpret and no limit on argument length applies to.
 */
export async function curlCommand(url, image, request, key) {
  const lines = [`curl -sS ${quote(url)}`];
  if (key) lines.push('-H "Authorization: Bearer $API_KEY"');
  if (image.isFile) {
    lines.push(`-F ${quote(formName(image.name))}`, `--form-string ${quote(`request=${JSON.stringify(request)}`)}`);
    return `${lines.join(" \\\n  ")}\n`;
  }
  lines.push("-H 'Content-Type: application/json'", "--data-binary @- <<'JSON'");
  const body = JSON.stringify({ image: { base64: await base64(image.blob) }, ...request });
  return `${lines.join(" \\\n  ")}\n${body}\nJSON\n`;
}
