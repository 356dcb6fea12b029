//! The answers to a session's requests for credentials.

use countersign_core::service_account::PodToken;
use countersign_index::Entitlement;
use countersign_proto::issuer::v1::{self, session_response};
use tokio::time::Instant;

use super::Session;
use crate::{
    Context,
    error::IssuerError,
    issuance::{self, IssuanceInputs, IssuanceRecord, Issued},
    metrics::Kind,
    published::Published,
    registry::Registration,
};

impl Session<'_> {
    /// Verifies the token of a request; a newer one prolongs the stream.
    pub(super) async fn admit(&mut self, token: &str, at: Instant) -> Result<(), IssuerError> {
        self.pace.take(at).map_err(IssuerError::TooFast)?;
        let pod = self.context.token_keys.verify(token, self.context.clock.now()).await?;
        if pod.pod_uid != self.pod.pod_uid {
            return Err(IssuerError::OtherPod);
        }
        self.expires_at = self.expires_at.max(pod.expires_at);
        Ok(())
    }

    pub(super) fn answer_x509(&mut self, request: v1::X509Request, begin: Instant) {
        let entitlement = self.subscription.current();
        let inputs = inputs(self.context, &self.pod, &entitlement, self.published.current());
        let share = self.signing.take(&self.pod.namespace, begin).map_err(IssuerError::NamespaceBusy);
        match share.and_then(|()| issuance::x509(&request, inputs, &mut self.keys_used)) {
            Ok(Issued { response, record }) => {
                account_for(self.context, &self.registration, &record, begin);
                self.renewed(&response.spiffe_id);
                self.answers.push_back(session_response::Kind::X509(response));
            }
            Err(refused) => self.refuse_x509(request.id, &refused),
        }
    }

    pub(super) fn refuse_x509(&mut self, id: u64, refused: &IssuerError) {
        self.context.metrics.refused(Kind::X509, refused.reason());
        tracing::debug!(namespace = self.pod.namespace, pod = self.pod.pod_name, error = %refused, "X509-SVID refused");
        let refusal = Some(refused.to_answer());
        self.answers.push_back(session_response::Kind::X509(v1::X509Response { id, refusal, ..Default::default() }));
    }

    pub(super) fn answer_wit(&mut self, request: &v1::WitRequest, admitted: Result<(), IssuerError>, begin: Instant) {
        let entitlement = self.subscription.current();
        let inputs = inputs(self.context, &self.pod, &entitlement, self.published.current());
        let issued = admitted
            .and_then(|()| self.signing.take(&self.pod.namespace, begin).map_err(IssuerError::NamespaceBusy))
            .and_then(|()| issuance::wit(request, inputs, &mut self.keys_used));
        let answer = match issued {
            Ok(Issued { response, record }) => {
                account_for(self.context, &self.registration, &record, begin);
                response
            }
            Err(refused) => {
                self.context.metrics.refused(Kind::Wit, refused.reason());
                tracing::debug!(namespace = self.pod.namespace, pod = self.pod.pod_name, error = %refused, "WIT-SVID refused");
                v1::WitResponse { id: request.id, refusal: Some(refused.to_answer()), ..Default::default() }
            }
        };
        self.answers.push_back(session_response::Kind::Wit(answer));
    }

    pub(super) fn answer_jwt(&mut self, request: &v1::JwtRequest, admitted: Result<(), IssuerError>, begin: Instant) {
        let entitlement = self.subscription.current();
        let inputs = inputs(self.context, &self.pod, &entitlement, self.published.current());
        let issued = admitted
            .and_then(|()| self.signing.take(&self.pod.namespace, begin).map_err(IssuerError::NamespaceBusy))
            .and_then(|()| issuance::jwt(request, inputs));
        let answer = match issued {
            Ok(Issued { response, record }) => {
                account_for(self.context, &self.registration, &record, begin);
                response
            }
            Err(refused) => {
                self.context.metrics.refused(Kind::Jwt, refused.reason());
                tracing::debug!(namespace = self.pod.namespace, pod = self.pod.pod_name, error = %refused, "JWT-SVID refused");
                v1::JwtResponse { id: request.id, refusal: Some(refused.to_answer()), ..Default::default() }
            }
        };
        self.answers.push_back(session_response::Kind::Jwt(answer));
    }
}

/// Counts and records what was issued.
fn account_for(context: &Context, registration: &Registration, record: &IssuanceRecord<'_>, begin: Instant) {
    context.metrics.issued(record.kind.into(), begin.elapsed());
    registration.record().issued(record);
}

fn inputs<'a>(
    context: &Context,
    pod: &'a PodToken,
    entitlement: &'a Entitlement,
    published: &'a Published,
) -> IssuanceInputs<'a> {
    IssuanceInputs { entitlement, published, pod, now: context.clock.now() }
}
