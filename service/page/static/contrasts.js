// What replaces the image in each contrast, as described by GET /v1/models, and the scores of each in an answer.

const phrases = new Map(); // contrast → phrase

/** Stores the contrast_words of a model. */
export function storeContrastPhrases(found) {
  for (const [name, phrase] of Object.entries(found)) phrases.set(name, phrase);
}

/** Returns a phrase that completes “with …”, or the name of the contrast until it is known. */
export const contrastPhrase = (contrast) => phrases.get(contrast) ?? contrast;

/** Returns the contrasts of an answer: the first one, from which the server derives weights, and the further ones. */
export const contrastsOf = ({ contrast, further_contrasts: further }) => [contrast, ...further];

/** Returns the tokens of an answer with the scores of one of its contrasts as the plain ones (TokenScores.with_contrast
 * in Python). Those of a further contrast have no weights: null. */
export function tokensWith(answer, contrast) {
  if (contrast === answer.contrast) return answer.tokens;
  const [gap, logprob] = [`logit_gap_${contrast}`, `logprob_${contrast}`];
  return answer.tokens.map((token) => ({
    ...token,
    logit_gap: token[gap],
    logprob_contrast: token[logprob],
    weight: null,
  }));
}
