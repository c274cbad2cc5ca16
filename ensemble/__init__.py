"""The third stage: combines finished trials into one weighted, hashed bundle, measures it and predicts with it."""
