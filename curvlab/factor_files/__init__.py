"""Factor files: second moments, K-FAC factors and the Fisher's diagonal of every layer, for tools that start there."""
