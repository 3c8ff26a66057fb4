package h3

// SinCosDeg is what At is computed with.
var SinCosDeg = sinCosDeg
