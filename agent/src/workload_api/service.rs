//! The five methods. A stream sends the full state at once, again whenever it changes, and ends when the identity is
//! withdrawn.

use std::pin::Pin;
use std::sync::Arc;

use countersign_core::id::SpiffeId;
use countersign_proto::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use countersign_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use countersign_verify::{Authorizer, validation::validate_jwt_svid};
use futures::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use super::convert::{claims, jwt_bundles, wit_bundles, wit_svids, x509_bundles, x509_svids};
use crate::publish::{Credentials, Published, Svid};
use crate::session::{JwtClient, JwtClientError};

/// Audiences of one token, and the bytes of one audience.
const MAX_AUDIENCES: usize = 16;
const MAX_AUDIENCE: usize = 2048;

/// One session's Workload API.
#[derive(Debug, Clone)]
pub struct WorkloadApi {
    published: watch::Receiver<Published>,
    jwt_client: JwtClient,
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl WorkloadApi {
    /// Serves what is published, and tokens from `jwt_client`.
    pub fn new(published: watch::Receiver<Published>, jwt_client: JwtClient) -> Self {
        Self { published, jwt_client }
    }

    fn credentials(&self) -> Result<Arc<Credentials>, Status> {
        ready(&self.published.borrow())
    }

    /// `message` of the current credentials, and of every later revision. Without credentials the call fails.
    fn updates<T: Send + 'static>(&self, message: fn(&Credentials) -> T) -> Result<Response<Updates<T>>, Status> {
        self.updates_of(|credentials| credentials.revision, move |credentials| Ok(message(credentials)))
    }

    /// As [`Self::updates`], by another revision; an error of `message` ends the stream.
    fn updates_of<T: Send + 'static>(
        &self,
        revision_of: fn(&Credentials) -> u64,
        message: impl Fn(&Credentials) -> Result<T, Status> + Send + Sync + 'static,
    ) -> Result<Response<Updates<T>>, Status> {
        let mut published = self.published.clone();
        let first = ready(&published.borrow_and_update())?;
        let revision = revision_of(&first);
        let first = message(&first)?;
        let message = Arc::new(message);
        let later = stream::unfold(Some((published, revision)), move |state| {
            let message = Arc::clone(&message);
            async move {
                let (mut published, revision) = state?;
                loop {
                    published.changed().await.ok()?;
                    let current = ready(&published.borrow_and_update());
                    match current {
                        Ok(credentials) if revision_of(&credentials) == revision => {}
                        Ok(credentials) => {
                            let revision = revision_of(&credentials);
                            return Some(match message(&credentials) {
                                Ok(message) => (Ok(message), Some((published, revision))),
                                Err(status) => (Err(status), None),
                            });
                        }
                        Err(status) => return Some((Err(status), None)),
                    }
                }
            }
        });
        let first = stream::iter([Ok(first)]);
        Ok(Response::new(Box::pin(futures::StreamExt::chain(first, later))))
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;
    type FetchWITSVIDStream = Updates<WitsvidResponse>;
    type FetchWITBundlesStream = Updates<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        check_metadata(&request)?;
        self.updates(x509_svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        check_metadata(&request)?;
        self.updates(x509_bundles)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        check_metadata(&request)?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        check_audiences(&audience)?;
        let credentials = self.credentials()?;
        let requested = requested_svids(&credentials, &spiffe_id)?;
        let mut svids = Vec::with_capacity(requested.len());
        let mut refusal = None;
        for svid in requested {
            match self.jwt_client.fetch(svid.id.clone(), audience.clone()).await {
                Ok(token) => svids.push(Jwtsvid {
                    spiffe_id: svid.id.to_string(),
                    svid: token.as_str().to_owned(),
                    hint: svid.hint.clone(),
                }),
                Err(error) => refusal = refusal.or(Some(status_of(error))),
            }
        }
        match refusal {
            Some(status) if svids.is_empty() => Err(status),
            _ => Ok(Response::new(JwtsvidResponse { svids })),
        }
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        check_metadata(&request)?;
        self.updates(jwt_bundles)
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        check_metadata(&request)?;
        let wanted = request.into_inner().spiffe_id;
        self.updates_of(
            |credentials| credentials.wit_revision,
            move |credentials| wit_svids(&requested_svids(credentials, &wanted)?),
        )
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        check_metadata(&request)?;
        self.updates(wit_bundles)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        check_metadata(&request)?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        check_audiences(std::slice::from_ref(&audience))?;
        if svid.is_empty() {
            return Err(Status::invalid_argument("svid is empty: it must hold the JWT-SVID to validate"));
        }
        let credentials = self.credentials()?;
        // Which paths of a foreign trust domain are accepted is decided for the one id in the token, once it is verified.
        let verified =
            validate_jwt_svid(&svid, &audience, &credentials.trust, &Authorizer::anybody(), Timestamp::now())
                .map_err(|error| Status::invalid_argument(format!("the JWT-SVID is not valid: {error}")))?;
        if !credentials.accepts(&verified.id) {
            let message = "the JWT-SVID is not valid: its trust domain is accepted here for other paths only";
            return Err(Status::invalid_argument(message));
        }
        let spiffe_id = verified.id.to_string();
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id, claims: Some(claims(verified.raw)) }))
    }
}

/// SPIFFE Workload API, section 4: a request without it may be a server-side request forgery.
fn check_metadata<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("workload.spiffe.io") {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("the metadata workload.spiffe.io: true is missing (SPIFFE Workload API, 4)")),
    }
}

fn ready(published: &Published) -> Result<Arc<Credentials>, Status> {
    match published {
        Published::Ready(credentials) => Ok(Arc::clone(credentials)),
        Published::NotReady(reason) => Err(Status::unavailable(reason.to_string())),
        Published::NoIdentity(reason) => Err(Status::permission_denied(reason.to_string())),
    }
}

fn check_audiences(audiences: &[String]) -> Result<(), Status> {
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        return Err(Status::invalid_argument("audience is empty: name who the token is for"));
    }
    if audiences.len() > MAX_AUDIENCES || audiences.iter().any(|audience| audience.len() > MAX_AUDIENCE) {
        let limits = format!("at most {MAX_AUDIENCES} audiences of at most {MAX_AUDIENCE} bytes");
        return Err(Status::invalid_argument(limits));
    }
    Ok(())
}

/// The identities of a request for tokens: the one it names, or all.
fn requested_svids<'a>(credentials: &'a Credentials, spiffe_id: &str) -> Result<Vec<&'a Svid>, Status> {
    if spiffe_id.is_empty() {
        return Ok(credentials.svids.iter().collect());
    }
    let id: SpiffeId = spiffe_id
        .parse()
        .map_err(|error| Status::invalid_argument(format!("spiffe_id is not a SPIFFE ID: {error}")))?;
    let own = credentials.svids.iter().find(|svid| svid.id == id);
    own.map(|svid| vec![svid])
        .ok_or_else(|| Status::permission_denied("this workload is not entitled to that SPIFFE ID"))
}

fn status_of(error: JwtClientError) -> Status {
    match error {
        JwtClientError::Refused { code, message } => match Code::from_i32(code) {
            Code::Ok | Code::Unknown => Status::internal(message),
            code => Status::new(code, message),
        },
        JwtClientError::Unavailable(why) => Status::unavailable(why),
    }
}
