//! What a client may do over SSH: sign in with a key and start SFTP. Everything else is refused.

use std::collections::HashMap;
use std::sync::Arc;

use ::metrics::counter;
use russh::keys::ssh_key::public::KeyData;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Response, Session as SshSession, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::account::AccountState;
use super::context::Session;
use super::keys::{fingerprint, is_safe};
use super::login_throttle::ConnectionPermit;
use super::metrics;
use super::record::Row;
use super::requests::{Broken, Requests};

/// Channels that one connection may have open at once.
const CHANNELS: usize = 4;

/// A connection: the handler that the SSH library calls.
pub(super) struct Connection {
    session: Arc<Session>,
    connection_permit: ConnectionPermit,
    account: Option<Arc<AccountState>>,
    /// The fingerprint of the key that the account has signed in with, for the access log.
    key: String,
    /// One of the connections that the account may have at once.
    session_permit: Option<(OwnedSemaphorePermit, metrics::SessionGauge)>,
    channels: HashMap<ChannelId, Option<Requests>>,
}

impl Connection {
    pub(super) fn new(session: Arc<Session>, connection_permit: ConnectionPermit) -> Self {
        Connection {
            session,
            connection_permit,
            account: None,
            key: String::new(),
            session_permit: None,
            channels: HashMap::new(),
        }
    }

    /// The account `user`, if it may sign in with this key.
    fn account(
        &self,
        user: &str,
        key: &KeyData,
        algorithm: &russh::keys::Algorithm,
    ) -> Option<Arc<AccountState>> {
        let account = Arc::clone(self.session.context.accounts().get(user)?);
        (is_safe(algorithm) && account.keys.contains(key)).then_some(account)
    }

    /// Refuses a sign-in. The answer and its delay are the same whatever the reason.
    fn refuse(&mut self, user: &str, with: &str) -> Result<Auth, russh::Error> {
        counter!(metrics::SIGN_INS, "result" => "refused").increment(1);
        let is_known = self.session.context.accounts().contains_key(user);
        let name: String = user.escape_debug().take(64).collect();
        // A name that is no account's may be anything, also a password: it is not recorded as the performer.
        let row = Row {
            action: "SFTP_LOGIN_REFUSED",
            message: format!("sign-in as {name} was refused"),
            parameters: json!({ "with": with, "known": is_known }),
            ..self.session.row(if is_known { user } else { "unknown" })
        };
        self.session.context.recorder.refused(row);
        if self.connection_permit.refused() {
            tracing::debug!(address = %self.session.address, "SFTP: too many keys were refused");
            return Err(russh::Error::Disconnect);
        }
        Ok(Auth::reject())
    }

    /// Closes a channel from our side.
    fn end(&mut self, channel: ChannelId, ssh: &mut SshSession) -> Result<(), russh::Error> {
        if self.channels.remove(&channel).is_some() {
            ssh.exit_status_request(channel, 0)?;
            ssh.eof(channel)?;
            ssh.close(channel)?;
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
        match self.account(user, offer.public_key.key_data(), offer.algorithm) {
            Some(_) => Ok(Auth::Accept),
            None => self.refuse(user, &fingerprint(offer.public_key)),
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let account = self.account(user, key.public_key.key_data(), key.algorithm);
        let Some(account) = account else { return self.refuse(user, &fingerprint(key.public_key)) };
        self.account = Some(account);
        self.key = fingerprint(key.public_key);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, ssh: &mut SshSession) -> Result<(), Self::Error> {
        let Some(account) = &self.account else { return Err(russh::Error::Inconsistent) };
        self.connection_permit.signed_in();
        self.session.touch();
        let _ = self.session.account.set(Arc::clone(account));
        let row = self.session.row(&account.name);
        let Some(session_permit) = account.acquire_session() else {
            counter!(metrics::SIGN_INS, "result" => "crowd").increment(1);
            let message = "this account has too many connections already";
            let parameters = json!({ "with": self.key, "known": true });
            let message_row = format!("sign-in was refused: {message}");
            let row = Row { action: "SFTP_LOGIN_REFUSED", message: message_row, parameters, ..row };
            self.session.context.recorder.refused(row);
            return ssh.disconnect(Disconnect::TooManyConnections, message, "en");
        };
        let parameters = json!({ "key": self.key });
        let row = Row { action: "SFTP_LOGIN", message: "signed in".into(), parameters, ..row };
        self.session.context.recorder.note(row);
        tracing::info!(account = account.name, address = %self.session.address, session = self.session.id, "SFTP: signed in");
        self.session_permit = Some((session_permit, metrics::SessionGauge::new()));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= CHANNELS || self.session.context.stopping.is_cancelled() {
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
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        let Some(account) = self.account.as_ref().filter(|_| self.session_permit.is_some()) else {
            return Err(russh::Error::Inconsistent);
        };
        match self.channels.get_mut(&channel) {
            Some(requests @ None) if name == "sftp" => {
                *requests = Some(Requests::new(channel, ssh, &self.session, account));
                ssh.channel_success(channel)
            }
            _ => ssh.channel_failure(channel),
        }
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        self.session.touch();
        let Some(Some(requests)) = self.channels.get_mut(&channel) else { return Ok(()) };
        if let Err(Broken(why)) = requests.receive(data, ssh).await {
            tracing::debug!(session = self.session.id, why, "SFTP: the connection is ended");
            return Err(russh::Error::Disconnect);
        }
        Ok(())
    }

    async fn window_adjusted(&mut self, _: ChannelId, _: u32, _: &mut SshSession) -> Result<(), Self::Error> {
        self.session.touch();
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, ssh: &mut SshSession) -> Result<(), Self::Error> {
        self.end(channel, ssh)
    }

    async fn channel_close(&mut self, channel: ChannelId, _ssh: &mut SshSession) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn shell_request(&mut self, channel: ChannelId, ssh: &mut SshSession) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        _command: &[u8],
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
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
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        ssh: &mut SshSession,
    ) -> Result<(), Self::Error> {
        ssh.channel_failure(channel)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Dropping the channels records interrupted transfers, before the end of the session is recorded.
        self.channels.clear();
        let (Some(_), Some(account)) = (self.session_permit.take(), &self.account) else { return };
        let row = Row {
            action: "SFTP_LOGOUT",
            message: "the session ended".into(),
            parameters: json!({}),
            ..self.session.row(&account.name)
        };
        self.session.context.recorder.note(row);
        tracing::info!(account = account.name, session = self.session.id, "SFTP: the session ended");
    }
}
