//! Who asks, and what they may.
//!
//! A request is sent by a [`Principal`], known by one of our keys or by a token of an issuer that is
//! configured, or by a [`Person`] who asks about themselves. Whoever is neither is refused, and a
//! principal may do only what [`Principal::require`] lets them.
//!
//! | module | idea |
//! |---|---|
//! | `role` | what somebody is, and what that lets them do |
//! | `principal`, `bounds` | who asks, and what bounds what they see |
//! | `settings` | whose tokens are taken, and what they stand for |
//! | `keyring` | our own keys |
//! | `token` | what is asked of tokens; `sporlog_record::jose` verifies their signatures |
//! | `issuer` | an issuer, and how its keys are kept up to date |
//! | `grant` | what a good token stands for |
//! | `cache` | tokens that were verified |
//! | `control`, `extract` | find out who sends a request, and hand it to handlers |
//! | `refusal` | why somebody is not let in |

mod bounds;
mod cache;
mod control;
mod extract;
mod grant;
mod issuer;
mod keyring;
mod principal;
mod refusal;
mod role;
mod settings;
#[cfg(test)]
mod tests;
mod token;

pub use bounds::BoundError;
pub use control::AccessControl;
pub use issuer::FetchError;
pub(crate) use issuer::{MOST_BYTES, client, with_causes};
pub use keyring::{Key, KeyRefusal, KeyRegistry, KeyRing, KeyRingError, NewKey, PREFIX};
pub use principal::{Person, Principal, Via};
pub use role::{Permission, Role, UnknownRole};
pub(crate) use settings::is_allowed;
pub use settings::{AccessSettings, IssuerSettings, PersonSettings, RoleSettings, SettingsError};
pub(crate) use token::claim;
