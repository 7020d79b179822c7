"""The parts of `training_gain`: noisy captions, a student that learns from them, and measures of what it learned."""
