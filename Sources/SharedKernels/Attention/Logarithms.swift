// Softmax works in powers of two; lse is a natural logarithm.

@inline(__always) var log2e: Float { 1.44269504 }
@inline(__always) var ln2: Float { 0.693147181 }
