//! The requests that a session sends on its stream, and how it handles responses and workload calls.

use std::time::Duration;

use countersign_core::id::SpiffeId;
use countersign_proto::issuer::v1::session_request::Kind as Request;
use countersign_proto::issuer::v1::session_response::Kind as Response;
use countersign_proto::issuer::v1::{JwtResponse, SessionResponse, State};
use jiff::Timestamp;
use tokio::time::Instant;

use super::stream::{IssuerStream, SentReceipt};
use super::{MAX_WAITING_CALLS, Session, WaitingCalls, jitter, time_until};
use crate::session::entitlements::Entitlements;
use crate::session::jwt_client::{JwtCall, JwtClientError};
use crate::session::messages;
use crate::session::renewal_planner::{CredentialRequest, ResponseError};
use crate::token::Token;

impl Session {
    /// Sends the requests that are due, publishes, acknowledges, and sends a receipt; returns how long to sleep at most.
    pub(super) fn send_due_requests(&mut self, stream: &mut IssuerStream) -> Result<Duration, String> {
        let now = Timestamp::now();
        if self.planner.clock_was_set_back(now) {
            return Err("the clock was set back: beginning anew".into());
        }
        if now >= stream.reread_token_at {
            self.reread_token(stream, now);
        }
        let plan = self.planner.plan(now);
        if plan.stalled {
            return Err("the issuer left a request unanswered".into());
        }
        for request in plan.requests {
            self.send_request(request, stream, now)?;
        }
        self.publish();
        self.acknowledge(stream);
        self.send_receipt(stream);
        let plan = self.planner.plan(now);
        Ok(time_until(plan.wake_at).min(time_until(Some(stream.reread_token_at))))
    }

    /// Sends one request, unless the queue is full or there is no token: then it stays due.
    fn send_request(
        &mut self,
        request: CredentialRequest,
        stream: &mut IssuerStream,
        now: Timestamp,
    ) -> Result<(), String> {
        let Ok(permit) = stream.outgoing.clone().try_reserve_owned() else {
            return Ok(());
        };
        let Some(token) = self.reread_token(stream, now) else {
            return Ok(());
        };
        let request_id = self.next_request_id();
        let message = match request {
            CredentialRequest::X509(id) => {
                let (key, request) =
                    messages::x509_request(request_id, Some(&id), &token).map_err(|error| error.to_string())?;
                self.planner.record_x509_request(request_id, Some(id), key, now);
                messages::message(Request::X509(request))
            }
            CredentialRequest::Jwt(id, audiences) => {
                let message = messages::jwt_request(request_id, &id, &audiences, &token);
                self.planner.record_jwt_request(request_id, id, audiences, now);
                message
            }
            CredentialRequest::Wit(id) => {
                let (key, message) =
                    messages::wit_request(request_id, &id, &token).map_err(|error| error.to_string())?;
                self.planner.record_wit_request(request_id, id, key, now);
                message
            }
        };
        permit.send(message);
        Ok(())
    }

    /// The token that the file holds now. A newer one is sent to the issuer, which extends the stream's lifetime. Without one
    /// the stream goes on until it expires.
    fn reread_token(&self, stream: &mut IssuerStream, now: Timestamp) -> Option<Token> {
        let read = self.parts.token.read();
        if let Ok(token) = &read
            && token.expires_at() > stream.token.expires_at()
            && stream.outgoing.try_send(messages::token_refresh(token)).is_ok()
        {
            stream.token = token.clone();
        }
        stream.reread_token_at = stream.token.reread_at(now);
        read.inspect_err(|error| tracing::warn!(%error, "the token is read again later")).ok()
    }

    pub(super) fn handle_response(
        &mut self,
        response: SessionResponse,
        stream: &mut IssuerStream,
    ) -> Result<(), String> {
        let now = Timestamp::now();
        match response.kind {
            Some(Response::State(state)) => {
                let generation = state.generation;
                self.apply_state(state, now)?;
                stream.state_received = true;
                stream.unacknowledged = Some(generation);
            }
            Some(Response::X509(response)) => {
                if let Err(error) = self.planner.accept_x509(response, now, jitter()) {
                    self.log_rejected_response(&error);
                }
            }
            Some(Response::Jwt(response)) => self.handle_jwt(response, now),
            Some(Response::Wit(response)) => {
                if let Err(error) = self.planner.accept_wit(response, now, jitter()) {
                    self.log_rejected_response(&error);
                }
            }
            None => tracing::debug!("the issuer sent a message of a kind this agent does not know"),
        }
        Ok(())
    }

    fn apply_state(&mut self, state: State, now: Timestamp) -> Result<(), String> {
        if let Err(error) = self.parts.upstream.set_pushed_roots(&state.control_plane_roots) {
            tracing::warn!(%error, "the control plane's roots");
        }
        let entitlements = Entitlements::parse(state, &self.parts.bundles).map_err(|error| error.to_string())?;
        let identities = entitlements.identities.len();
        tracing::debug!(session = self.parts.config.name, identities, "the issuer sent a state");
        self.planner.set_entitlements(entitlements, now);
        Ok(())
    }

    /// Acknowledges the last State once it is in effect. If the queue is full, it stays due.
    fn acknowledge(&self, stream: &mut IssuerStream) {
        let Some((generation, sequences)) = stream.unacknowledged.zip(self.bundles_in_effect()) else { return };
        if stream.outgoing.try_send(messages::ack(generation, sequences)).is_ok() {
            stream.unacknowledged = None;
        }
    }

    /// Says what the workload can use, if that is another than the stream was sent, and now and then for the sake of the clock. If the
    /// queue is full, it stays due. A workload that never had anything has nothing to say.
    fn send_receipt(&self, stream: &mut IssuerStream) {
        let is_known = match &stream.receipt {
            Some(sent) => sent.is_current(&self.held, Instant::now()),
            None => self.held.is_empty(),
        };
        if !stream.state_received || is_known {
            return;
        }
        // What came before, such as the making of keys, takes time.
        let message = messages::receipt(self.held.clone(), Timestamp::now());
        if stream.outgoing.try_send(message).is_ok() {
            stream.receipt = Some(SentReceipt { svids: self.held.clone(), at: Instant::now() });
        }
    }

    fn handle_jwt(&mut self, response: JwtResponse, now: Timestamp) {
        let request_id = response.id;
        let accepted = self.planner.accept_jwt(response, now, jitter());
        let replies = self.waiting.remove(&request_id).map(|calls| calls.replies).unwrap_or_default();
        let result = match accepted {
            Ok(credential) => Ok(credential.token),
            Err(error) => {
                if replies.is_empty() {
                    self.log_rejected_response(&error);
                }
                Err(match error {
                    ResponseError::Refused { code, message } => JwtClientError::Refused { code, message },
                    other => JwtClientError::Unavailable(other.to_string()),
                })
            }
        };
        for reply in replies {
            let _ = reply.send(result.clone());
        }
    }

    /// Answers a workload's call with a cached token in the first half of its lifetime, or else requests one from the issuer.
    /// Without a stream the call waits for the next one for a while.
    pub(super) fn handle_call(&mut self, call: JwtCall, stream: Option<&mut IssuerStream>) {
        let now = Timestamp::now();
        let cached = self.planner.token(&call.id, &call.audiences, now);
        let is_young = cached.is_some_and(|(_, young)| young);
        let cached = cached.map(|(credential, _)| credential.token.clone());
        let Some(stream) = stream.filter(|_| !is_young) else {
            let away = || JwtClientError::unavailable("the issuer cannot be reached, and no such token is held");
            return match cached {
                None if self.may_wait_for_stream() => self.pending.push(call),
                cached => drop(call.reply.send(cached.ok_or_else(away))),
            };
        };
        let JwtCall { id, audiences, reply } = call;
        let request_id = match self.request_jwt(id.clone(), audiences.clone(), stream, now) {
            Ok(request_id) => request_id,
            Err(reason) => return drop(reply.send(cached.ok_or_else(|| JwtClientError::unavailable(reason)))),
        };
        let calls =
            self.waiting.entry(request_id).or_insert_with(|| WaitingCalls { id, audiences, replies: Vec::new() });
        if calls.replies.len() < MAX_WAITING_CALLS {
            calls.replies.push(reply);
        } else {
            let full = || JwtClientError::unavailable("too many calls wait for this token");
            drop(reply.send(cached.ok_or_else(full)));
        }
    }

    /// The id of the request for that token, which is sent unless one is pending.
    fn request_jwt(
        &mut self,
        id: SpiffeId,
        audiences: Vec<String>,
        stream: &mut IssuerStream,
        now: Timestamp,
    ) -> Result<u64, &'static str> {
        if let Some(request_id) = self.planner.pending_jwt_request(&id, &audiences) {
            return Ok(request_id);
        }
        let busy = "too many requests are on their way to the issuer";
        let permit = stream.outgoing.clone().try_reserve_owned().map_err(|_| busy)?;
        let no_token = "the agent cannot read its service account token";
        let token = self.reread_token(stream, now).ok_or(no_token)?;
        let request_id = self.next_request_id();
        permit.send(messages::jwt_request(request_id, &id, &audiences, &token));
        self.planner.record_jwt_request(request_id, id, audiences, now);
        Ok(request_id)
    }
}
