//! What a connection may do besides SFTP: sign in with a key, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::metrics::counter;
use russh::keys::ssh_key::public::KeyData;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty};
use serde_json::json;

use super::context::Visit;
use super::guard::Place;
use super::keys::{fingerprint, is_safe};
use super::member::{Member, Seat};
use super::metrics;
use super::record::Row;
use super::requests::{Broken, Requests};

/// Channels that one connection may have open.
const CHANNELS: usize = 4;

/// A connection, as the library for SSH calls on it.
pub(super) struct Connection {
    visit: Arc<Visit>,
    place: Place,
    member: Option<Arc<Member>>,
    /// The key that the account has signed in with, for the record.
    key: String,
    seat: Option<(Seat, metrics::Session)>,
    channels: HashMap<ChannelId, Option<Requests>>,
}

impl Connection {
    pub(super) fn new(visit: Arc<Visit>, place: Place) -> Self {
        Connection { visit, place, member: None, key: String::new(), seat: None, channels: HashMap::new() }
    }

    /// The account, if it may sign in with this key.
    fn member(&self, user: &str, key: &KeyData, algorithm: &russh::keys::Algorithm) -> Option<&Arc<Member>> {
        let member = self.visit.context.members.get(user)?;
        (is_safe(algorithm) && member.keys.contains(key)).then_some(member)
    }

    /// Somebody may not sign in. It looks the same, and takes as long, whatever the reason.
    fn refuse(&mut self, user: &str, with: &str) -> Result<Auth, russh::Error> {
        counter!(metrics::SIGN_INS, "result" => "refused").increment(1);
        let is_known = self.visit.context.members.contains_key(user);
        let name: String = user.escape_debug().take(64).collect();
        // A name that is no account's may be anything, also something that belongs into no log.
        let row = Row {
            action: "SFTP_LOGIN_REFUSED",
            message: format!("sign-in as {name} was refused"),
            parameters: json!({ "with": with, "known": is_known }),
            ..self.visit.row(if is_known { user } else { "unknown" })
        };
        self.visit.context.recorder.refused(row);
        if self.place.refused() {
            tracing::debug!(address = %self.visit.address, "SFTP: too many keys were refused");
            return Err(russh::Error::Disconnect);
        }
        Ok(Auth::reject())
    }

    /// Has nothing but SFTP on a channel.
    fn refuse_request(channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    /// Ends a channel from our side.
    fn end(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if self.channels.remove(&channel).is_some() {
            session.exit_status_request(channel, 0)?;
            session.eof(channel)?;
            session.close(channel)?;
        }
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, _password: &str) -> Result<Auth, Self::Error> {
        self.refuse(user, "password")
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _submethods: &str,
        _response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        self.refuse(user, "keyboard-interactive")
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        match self.member(user, offer.public_key.key_data(), offer.algorithm) {
            Some(_) => Ok(Auth::Accept),
            None => self.refuse(user, &fingerprint(offer.public_key)),
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let member = self.member(user, key.public_key.key_data(), key.algorithm).map(Arc::clone);
        let Some(member) = member else { return self.refuse(user, &fingerprint(key.public_key)) };
        self.member = Some(member);
        self.key = fingerprint(key.public_key);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        let Some(member) = &self.member else { return Err(russh::Error::Inconsistent) };
        self.place.signed_in();
        self.visit.touch();
        self.visit.is_signed_in.store(true, Ordering::Release);
        let row = self.visit.row(&member.name);
        let Some(seat) = member.sit() else {
            counter!(metrics::SIGN_INS, "result" => "crowd").increment(1);
            let message = "this account has too many connections already";
            let parameters = json!({ "with": self.key, "known": true });
            let message_row = format!("sign-in was refused: {message}");
            let row = Row { action: "SFTP_LOGIN_REFUSED", message: message_row, parameters, ..row };
            self.visit.context.recorder.refused(row);
            return session.disconnect(Disconnect::TooManyConnections, message, "en");
        };
        let parameters = json!({ "key": self.key });
        let row = Row { action: "SFTP_LOGIN", message: "signed in".into(), parameters, ..row };
        self.visit.context.recorder.note(row);
        tracing::info!(account = member.name, address = %self.visit.address, session = self.visit.id, "SFTP: signed in");
        self.seat = Some((seat, metrics::Session::new()));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= CHANNELS || self.visit.context.stopping.is_cancelled() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), None);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(member) = self.member.as_ref().filter(|_| self.seat.is_some()) else {
            return Err(russh::Error::Inconsistent);
        };
        match self.channels.get_mut(&channel) {
            Some(requests @ None) if name == "sftp" => {
                *requests = Some(Requests::new(channel, session, &self.visit, member));
                session.channel_success(channel)
            }
            _ => Self::refuse_request(channel, session),
        }
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.visit.touch();
        let Some(Some(requests)) = self.channels.get_mut(&channel) else { return Ok(()) };
        if let Err(Broken(why)) = requests.receive(data, session).await {
            tracing::debug!(session = self.visit.id, why, "SFTP: the connection is ended");
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }

    async fn window_adjusted(&mut self, _: ChannelId, _: u32, _: &mut Session) -> Result<(), Self::Error> {
        self.visit.touch();
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.end(channel, session)
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        Self::refuse_request(channel, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Self::refuse_request(channel, session)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Self::refuse_request(channel, session)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Self::refuse_request(channel, session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Self::refuse_request(channel, session)
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Self::refuse_request(channel, session)?;
        Ok(false)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What is open is noted before the end of the session.
        self.channels.clear();
        let (Some(_), Some(member)) = (self.seat.take(), &self.member) else { return };
        let row = Row {
            action: "SFTP_LOGOUT",
            message: "the session ended".into(),
            parameters: json!({}),
            ..self.visit.row(&member.name)
        };
        self.visit.context.recorder.note(row);
        tracing::info!(account = member.name, session = self.visit.id, "SFTP: the session ended");
    }
}
