// Tokens → runs of tokens with whole characters, which can be shown. By UTF-8 byte spans.

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

/** Byte offset → index in the string, for every place where a character (as a reader sees it) may be cut. */
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
 * Cut one turn's text into runs of tokens {text, first, last} that, joined, give it back: each the smallest stretch
 * that holds whole characters and whole tokens, first … last − 1. One token as a rule; several where they share a
 * character (the bytes of an emoji), none where the text was not scored.
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
    // A token without bytes, or that ends within a character, is shown together with the next one.
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

/** White space as visible signs, one for each character; what has no width is shown as ∅. */
export const visible = (text) =>
  text
    .replaceAll("\r\n", "\n")
    .replace(/[\s\u200b-\u200f\ufeff]/g, (sign) => GLYPHS[sign] ?? (NO_WIDTH.test(sign) ? "∅" : "␣"));

/**
 * A scored run's text as it is drawn: {before, core, after}. A single space around a word stays plain and outside of the
 * coloured core; any other white space at an edge is made visible, and a line break still breaks the line.
 */
export function drawn(text) {
  const [, lead, word, trail] = EDGES.exec(text);
  if (/^ +$/.test(text)) return { before: "", core: text, after: "" }; // stays a space, where a line may break
  if (word === "") return { before: "", core: broken(text) || "∅", after: "" };
  const [before, after] = [lead === " " ? lead : "", trail === " " ? trail : ""];
  return { before, core: (before ? "" : broken(lead)) + word + (after ? "" : broken(trail)), after };
}

const broken = (space) => visible(space).replaceAll("↵", "↵\n");
