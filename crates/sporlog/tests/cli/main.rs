//! The program as its users meet it: the built binary, on real files, in a folder of its own.

mod any_path;
mod apikeys;
mod backing_up;
mod bad_input;
mod clock;
mod collecting;
mod configuring;
mod delivering;
mod exporting;
mod general;
mod housekeeping;
mod naming;
mod place;
mod producing;
mod proving;
mod quarantining;
mod questions;
mod reading;
mod served;
mod watching;
