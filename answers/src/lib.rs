//! Proves every instrument on worlds whose answer is known.
