//! The fault matrix: whatever breaks, nothing is lost, no state leaves before what it covers is
//! stored, and a failed sync says what to do.
//!
//! [`drill`] is one sync that meets one fault in every phase, and all that has to hold afterwards. The
//! scenarios are ordered by what breaks.

mod drill;
mod others;
mod refusals;
mod requests;
mod streams;
mod wire;
