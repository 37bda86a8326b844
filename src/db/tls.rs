//! Encrypted connections to PostgreSQL, on rustls with ring; the modes are libpq's (PostgreSQL's manual, "SSL
//! Support").

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The verification of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    /// No verification: the connection is encrypted, but the server is not authenticated (`prefer`, `require`).
    None,
    /// A trusted CA has signed the certificate, for any host name (`verify-ca`).
    Ca,
    /// A trusted CA has signed the certificate for the host of the connection (`verify-full`).
    Full,
}

/// Returns a TLS connector. Trusts the CA certificates in the PEM file `roots`, by default the system's.
pub(crate) fn connector(verify: Verify, roots: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = match verify {
        Verify::None => None,
        Verify::Ca | Verify::Full => Some(webpki_verifier(&provider, roots)?),
    };
    let verifier: Arc<dyn ServerCertVerifier> = match verifier {
        Some(verifier) if verify == Verify::Full => verifier,
        ca_verifier => Arc::new(SkipHostnameVerifier { ca_verifier, provider: Arc::clone(&provider) }),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Returns whether the error or one of its sources is a TLS error.
pub(crate) fn is_tls_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<Error>()
        || inner.and_then(|inner| inner.downcast_ref::<Error>()).is_some()
        || error.source().is_some_and(is_tls_error)
}

fn webpki_verifier(provider: &Arc<CryptoProvider>, roots: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut store = RootCertStore::empty();
    if let Some(file) = roots {
        let describe = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| describe(&error))? {
            let certificate = certificate.map_err(|error| describe(&error))?;
            store.add(certificate).map_err(|error| describe(&error))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build().map_err(|error| {
        let source = roots.map_or_else(|| "the system's certificates".to_owned(), |file| file.display().to_string());
        format!("{source}: {error}")
    })
}

/// Accepts a certificate for any host name, if `ca_verifier` accepts its chain; without `ca_verifier`, any certificate.
#[derive(Debug)]
struct SkipHostnameVerifier {
    ca_verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SkipHostnameVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(ca_verifier) = &self.ca_verifier else { return Ok(ServerCertVerified::assertion()) };
        // the host name is verified last: an error about it means that the chain is valid
        match ca_verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
