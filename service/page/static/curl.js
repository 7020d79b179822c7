// The same request as a command for a POSIX shell (and for zsh).

/** One word of a shell, whatever is in the text: within '…' nothing has a meaning but ' itself. */
export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A file name inside curl's -F name=@"…": there, \ and " are written with a \ before them. */
const formName = (name) => `image=@"${name.replace(/[\\"]/g, "\\$&")}"`;

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary);
}

/**
 * A file of the user's is named, to be run in its folder. A sample or a pasted picture has no place there, so that it
 * travels in the command, in a here-document: no shell reads it, and no limit on the length of arguments applies.
 */
export async function curlCommand(url, picture, request, key) {
  const lines = [`curl -sS ${quote(url)}`];
  if (key) lines.push('-H "Authorization: Bearer $API_KEY"');
  if (picture.isFile) {
    lines.push(`-F ${quote(formName(picture.name))}`, `--form-string ${quote(`request=${JSON.stringify(request)}`)}`);
    return `${lines.join(" \\\n  ")}\n`;
  }
  lines.push("-H 'Content-Type: application/json'", "--data-binary @- <<'JSON'");
  const body = JSON.stringify({ image: { base64: await base64(picture.blob) }, ...request });
  return `${lines.join(" \\\n  ")}\n${body}\nJSON\n`;
}
