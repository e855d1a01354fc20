//! The settings of a configuration, one file for each table: plain data with all defaults.

mod directory;
mod receive_connector;
mod send_connector;

pub use directory::{
    AskedServer, CacheConfig, CallAheadConfig, CustomProfile, DirectoryConfig, DirectoryKind, FileDirectoryConfig,
    HoldChanges, LdapConfig, LdapMode, Profile, SnapshotConfig,
};
pub use receive_connector::{
    Auth, CertificateFiles, Limits, MOST_UNKNOWN, OfferDsn, ReceiveConnector, ReceiveTls, ReceiveTlsMode,
};
pub use send_connector::{
    BareLf, ClientAddress, CutThrough, Delivery, EightBit, Host, Mechanism, Protocol, Retry, Select, SendAuth,
    SendConnector, SendTls, SendTlsMode, SmartHost, SmtpOut, Speaks, TlsVersion, WhenUnreachable,
};
