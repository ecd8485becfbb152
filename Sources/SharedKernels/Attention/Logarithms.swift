import MLAShims

// Softmax works in powers of two; lse is a natural logarithm.

@inline(__always) var log2e: Float { 1.44269504 }
@inline(__always) var ln2: Float { 0.693147181 }

/// lse = reference * ln 2 + ln(sum); -inf for a query without keys.
@inline(__always)
func naturalLSE(reference: Float, sum: Float) -> Float {
  sum == 0 ? -.infinity : reference * ln2 + mla_log(sum)
}
