// What stands in for the image, in the words of GET /v1/models.

const words = new Map(); // contrast → words

/** Takes in a model's contrast_words. */
export function learnContrasts(found) {
  for (const [name, phrase] of Object.entries(found)) words.set(name, phrase);
}

/** Words that complete “with …”; the name itself until they are known. */
export const contrastName = (contrast) => words.get(contrast) ?? contrast;
