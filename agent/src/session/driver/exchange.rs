//! What a session sends on its stream, and what it does with what comes.

use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_proto::issuer::v1::session_request::Kind as Request;
use countersign_proto::issuer::v1::session_response::Kind;
use countersign_proto::issuer::v1::{JwtResponse, SessionResponse, State};
use jiff::Timestamp;

use super::{Conversation, MAX_WAITERS, Session, Waiting, jitter, span_until};
use crate::session::hello;
use crate::session::tokens::{TokenDeskError, TokenRequest};
use crate::session::told::Told;
use crate::session::wallet::{NotAccepted, Want};
use crate::token::Token;

impl Session {
    /// Publishes and sends what is due; how long to sleep at most.
    pub(super) fn step(&mut self, conversation: &mut Conversation) -> Result<Duration, String> {
        let now = Timestamp::now();
        if self.wallet.was_set_back(now) {
            return Err("the clock was set back: beginning anew".into());
        }
        if now >= conversation.look_again_at {
            self.fresh_token(conversation, now);
        }
        let plan = self.wallet.plan(now);
        if plan.stalled {
            return Err("the issuer left a request unanswered".into());
        }
        for want in plan.ask {
            self.ask(want, conversation, now)?;
        }
        self.publish();
        let plan = self.wallet.plan(now);
        Ok(span_until(plan.wake_at).min(span_until(Some(conversation.look_again_at))))
    }

    fn ask(&mut self, want: Want, conversation: &mut Conversation, now: Timestamp) -> Result<(), String> {
        let Ok(permit) = conversation.outgoing.clone().try_reserve_owned() else {
            return Ok(());
        };
        let Some(token) = self.fresh_token(conversation, now) else {
            return Ok(());
        };
        let number = self.number();
        let message = match want {
            Want::X509(id) => {
                let (key, request) = hello::x509(number, Some(&id), &token).map_err(|error| error.to_string())?;
                self.wallet.asked_x509(number, Some(id), key, now);
                hello::message(Request::X509(request))
            }
            Want::Jwt(id, audiences) => {
                let message = hello::jwt(number, &id, &audiences, &token);
                self.wallet.asked_jwt(number, id, audiences, now);
                message
            }
        };
        permit.send(message);
        Ok(())
    }

    /// The token as the file has it now; a newer one also lengthens the stream's life. The stream goes on without until
    /// its end if there is none.
    fn fresh_token(&self, conversation: &mut Conversation, now: Timestamp) -> Option<Token> {
        let read = self.parts.token.read();
        if let Ok(token) = &read
            && token.expires_at() > conversation.token.expires_at()
            && conversation.outgoing.try_send(hello::refresh(token)).is_ok()
        {
            conversation.token = token.clone();
        }
        conversation.look_again_at = conversation.token.look_again_at(now);
        read.inspect_err(|error| tracing::warn!(%error, "the token is read again later")).ok()
    }

    pub(super) fn take(&mut self, message: SessionResponse, conversation: &mut Conversation) -> Result<(), String> {
        let now = Timestamp::now();
        match message.kind {
            Some(Kind::State(state)) => {
                self.tell(state, now)?;
                conversation.was_told = true;
            }
            Some(Kind::X509(answer)) => {
                if let Err(error) = self.wallet.accept_x509(answer, now, jitter()) {
                    self.complain(&error);
                }
            }
            Some(Kind::Jwt(answer)) => self.take_jwt(answer, now),
            None => tracing::debug!("the issuer sent a message of a kind this agent does not know"),
        }
        Ok(())
    }

    fn tell(&mut self, state: State, now: Timestamp) -> Result<(), String> {
        if let Err(error) = self.parts.upstream.learn_roots(&state.control_plane_roots) {
            tracing::warn!(%error, "the control plane's roots");
        }
        let told = Told::parse(state).map_err(|error| error.to_string())?;
        tracing::debug!(session = self.parts.config.name, identities = told.identities.len(), "told by the issuer");
        self.wallet.tell(told, now);
        Ok(())
    }

    fn take_jwt(&mut self, answer: JwtResponse, now: Timestamp) {
        let number = answer.id;
        let outcome = self.wallet.accept_jwt(answer, now, jitter());
        let waiters = self.waiters.remove(&number).map(|waiting| waiting.replies).unwrap_or_default();
        let reply = match outcome {
            Ok(held) => Ok(held.token),
            Err(error) => {
                if waiters.is_empty() {
                    self.complain(&error);
                }
                Err(match error {
                    NotAccepted::Refused { code, message } => TokenDeskError::Refused { code, message },
                    other => TokenDeskError::Unavailable(other.to_string()),
                })
            }
        };
        for waiter in waiters {
            let _ = waiter.send(reply.clone());
        }
    }

    /// Answers a workload's request for a token from what is held, or asks the issuer where there is a stream. Between two
    /// streams it waits for the next, for a while.
    pub(super) fn answer(&mut self, request: TokenRequest, conversation: Option<&mut Conversation>) {
        let now = Timestamp::now();
        let held = self.wallet.token(&request.id, &request.audiences, now);
        let is_young = held.is_some_and(|(_, young)| young);
        let held = held.map(|(held, _)| held.token.clone());
        let Some(conversation) = conversation.filter(|_| !is_young) else {
            let away = || unavailable("the issuer cannot be reached, and no such token is held");
            return match held {
                None if self.may_park() => self.parked.push(request),
                held => drop(request.reply.send(held.ok_or_else(away))),
            };
        };
        let TokenRequest { id, audiences, reply } = request;
        let number = match self.ask_for(id.clone(), audiences.clone(), conversation, now) {
            Ok(number) => number,
            Err(why) => return drop(reply.send(held.ok_or_else(|| unavailable(why)))),
        };
        let waiting = self.waiters.entry(number).or_insert_with(|| Waiting { id, audiences, replies: Vec::new() });
        if waiting.replies.len() < MAX_WAITERS {
            waiting.replies.push(reply);
        } else {
            drop(reply.send(held.ok_or_else(|| unavailable("too many calls wait for this token"))));
        }
    }

    /// The number of the request for that token, which is sent unless it is open already.
    fn ask_for(
        &mut self,
        id: SpiffeId,
        audiences: Vec<String>,
        conversation: &mut Conversation,
        now: Timestamp,
    ) -> Result<u64, &'static str> {
        if let Some(number) = self.wallet.open_jwt_request(&id, &audiences) {
            return Ok(number);
        }
        let busy = "too many requests are on their way to the issuer";
        let permit = conversation.outgoing.clone().try_reserve_owned().map_err(|_| busy)?;
        let no_token = "the agent cannot read its service account token";
        let token = self.fresh_token(conversation, now).ok_or(no_token)?;
        let number = self.number();
        permit.send(hello::jwt(number, &id, &audiences, &token));
        self.wallet.asked_jwt(number, id, audiences, now);
        Ok(number)
    }
}

pub(super) fn unavailable(why: &str) -> TokenDeskError {
    TokenDeskError::Unavailable(why.into())
}
