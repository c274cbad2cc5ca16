"""Stage 1: raw radiographs in, one cohort of comparable pixels out."""
