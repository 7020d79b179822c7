// Groups tokens into runs of whole characters, which can be displayed, by UTF-8 byte spans.

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const MANY_BYTES = /[\u0080-\uffff]/;

function byteLength(text) {
  let length = 0;
  for (const character of text) {
    const point = character.codePointAt(0);
    length += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  }
  return length;
}

/** Maps byte offsets to string indices at every boundary between characters as a reader sees them (graphemes). */
function boundaries(text) {
  const at = new Map();
  let bytes = 0;
  if (!MANY_BYTES.test(text) && !text.includes("\r\n")) {
    for (let i = 0; i <= text.length; i++) at.set(i, i);
    return { at, length: text.length };
  }
  for (const { segment, index } of graphemes.segment(text)) {
    at.set(bytes, index);
    bytes += byteLength(segment);
  }
  at.set(bytes, text.length);
  return { at, length: bytes };
}

/**
 * Cuts the text of one turn into runs {text, first, last} that concatenate to it. Each is the smallest stretch of whole
 * characters and whole tokens, first … last − 1: usually one token, several if they share a character (such as an
 * emoji), and none where the text was not scored.
 */
export function tokenRuns(text, starts, ends) {
  const { at, length } = boundaries(text);
  const cut = (from, to) => text.slice(at.get(from), at.get(to));
  const whole = (byte) => {
    while (!at.has(byte)) byte++;
    return byte;
  };
  const found = [];
  let done = 0;
  for (let first = 0; first < starts.length; ) {
    const start = Math.min(Math.max(done, starts[first]), length);
    if (start > done && at.has(start)) {
      found.push({ text: cut(done, start), first, last: first });
      done = start;
    }
    let last = first + 1;
    let end = Math.max(done, ends[first]);
    // Show a token without bytes, or one that ends within a character, together with the next.
    while (last < starts.length && (end <= done || !at.has(Math.min(end, length)) || ends[last] <= end)) {
      end = Math.max(end, ends[last++]);
    }
    end = whole(Math.min(end, length));
    found.push({ text: cut(done, end), first, last });
    [done, first] = [end, last];
  }
  if (done < length) found.push({ text: cut(done, length), first: starts.length, last: starts.length });
  return found;
}

const NO_WIDTH = /[\u200b-\u200f\ufeff]/;
const GLYPHS = { " ": "␣", "\t": "⇥", "\n": "↵", "\r": "↵", "\u00a0": "⍽" };
const EDGES = /^([\s\u200b-\u200f\ufeff]*)(.*?)([\s\u200b-\u200f\ufeff]*)$/su;

/** Replaces each white-space character by a visible sign; zero-width characters become ∅. */
export const visible = (text) =>
  text
    .replaceAll("\r\n", "\n")
    .replace(/[\s\u200b-\u200f\ufeff]/g, (sign) => GLYPHS[sign] ?? (NO_WIDTH.test(sign) ? "∅" : "␣"));

/**
 * Returns the text of a scored run as {before, core, after} for drawing. A single space around a word stays outside the
 * coloured core; other white space at the edges is made visible, and a line break still breaks the line.
 */
export function drawn(text) {
  const [, lead, word, trail] = EDGES.exec(text);
  if (/^ +$/.test(text)) return { before: "", core: text, after: "" }; // stays a space, where a line may break
  if (word === "") return { before: "", core: broken(text) || "∅", after: "" };
  const [before, after] = [lead === " " ? lead : "", trail === " " ? trail : ""];
  return { before, core: (before ? "" : broken(lead)) + word + (after ? "" : broken(trail)), after };
}

const broken = (space) => visible(space).replaceAll("↵", "↵\n");
