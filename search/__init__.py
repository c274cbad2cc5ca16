"""Stage 2: a cohort in, a study of cross-validated trials out."""
