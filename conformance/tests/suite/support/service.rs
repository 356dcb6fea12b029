//! The methods of the mock. None validates a token: a client that asked it to would show what the mock does.

use countersign_proto::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use countersign_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tonic::{Request, Response, Status};

use super::mock::{Method, Mock, Updates};

#[tonic::async_trait]
impl SpiffeWorkloadApi for Mock {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;
    type FetchWITSVIDStream = Updates<WitsvidResponse>;
    type FetchWITBundlesStream = Updates<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.admit(Method::FetchX509Svid, has_header(&request), &[], "")?;
        Ok(Response::new(self.x509_updates()))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.admit(Method::FetchX509Bundles, has_header(&request), &[], "")?;
        Ok(Response::new(self.x509_bundle_updates()))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        let has_header = has_header(&request);
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        self.admit(Method::FetchJwtSvid, has_header, &audience, &spiffe_id)?;
        Ok(Response::new(JwtsvidResponse { svids: self.jwt_svids(&spiffe_id) }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.admit(Method::FetchJwtBundles, has_header(&request), &[], "")?;
        Ok(Response::new(self.jwt_bundle_updates()))
    }

    async fn fetch_witsvid(&self, _: Request<WitsvidRequest>) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented("the catalogue has no cases of WIT-SVIDs"))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented("the catalogue has no cases of WIT-SVIDs"))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.admit(Method::ValidateJwtSvid, has_header(&request), &[], "")?;
        Err(Status::unimplemented("the client under test validates tokens itself"))
    }
}

/// SPIFFE Workload Endpoint, section 3.
fn has_header<T>(request: &Request<T>) -> bool {
    request.metadata().get("workload.spiffe.io").is_some_and(|value| value == "true")
}
