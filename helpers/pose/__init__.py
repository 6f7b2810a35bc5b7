"""Image -> network input, and network output -> poses; the estimator joins them."""
