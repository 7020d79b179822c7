"""The parts of `training_gain`: noisy captions, a student that learns from them, and what it has learnt."""
