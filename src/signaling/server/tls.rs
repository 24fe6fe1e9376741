//! What a server shows over TLS: [`TlsConfig`].

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its key, for [`serve_tls`](super::SignalingServer::serve_tls).
#[derive(Clone)]
pub struct TlsConfig(pub(super) Arc<ServerConfig>);

impl TlsConfig {
    /// From PEM: the certificate, followed by those that vouch for it, and its private key (PKCS #8, PKCS #1 or SEC1).
    /// TLS 1.2 and 1.3.
    ///
    /// # Errors
    ///
    /// [`TlsError`], if one of the two cannot be read, or they do not fit each other.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<TlsConfig, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| TlsError::Certificate(error.to_string()))?;
        if certificates.is_empty() {
            return Err(TlsError::Certificate("there is none in it".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        let rejected = |error: rustls::Error| TlsError::Rejected(error.to_string());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(rejected)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(rejected)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConfig(Arc::new(config)))
    }
}

/// Any configuration of rustls. Of the protocols that it offers (ALPN), `http/1.1` is the one for WebSockets.
impl From<Arc<ServerConfig>> for TlsConfig {
    fn from(config: Arc<ServerConfig>) -> TlsConfig {
        TlsConfig(config)
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConfig")
    }
}

/// Why something is no [`TlsConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate cannot be read.
    #[error("the certificate is no PEM: {0}")]
    Certificate(String),
    /// The private key cannot be read.
    #[error("the private key is no PEM: {0}")]
    Key(String),
    /// The two do not fit each other, or are of a kind that is not known.
    #[error("the certificate and its key are of no use: {0}")]
    Rejected(String),
}
