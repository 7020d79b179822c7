// What replaces the image in each contrast, as described by GET /v1/models.

const phrases = new Map(); // contrast → phrase

/** Stores the contrast_words of a model. */
export function storeContrastPhrases(found) {
  for (const [name, phrase] of Object.entries(found)) phrases.set(name, phrase);
}

/** Returns a phrase that completes “with …”, or the name of the contrast until it is known. */
export const contrastPhrase = (contrast) => phrases.get(contrast) ?? contrast;
