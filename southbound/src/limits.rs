//! Sizes that both ends of P4Runtime keep to. A foreign client is bound by
//! [`MAX_MESSAGE_BYTES`] alone.

use std::time::Duration;

/// Largest gRPC message either end takes: gRPC's own default.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Updates in one `Write`. Bounds the header that carries its errors: 500 of at most
/// [`crate::status::MAX_MESSAGE_BYTES`] and 60 bytes around them, in base64, are 170 KiB.
pub const MAX_UPDATES_PER_WRITE: usize = 500;
/// Bytes of updates in one `Write`; the largest single update is some 300.
pub const MAX_WRITE_BYTES: usize = 1 << 20;
/// Largest header list a client takes, bytes.
pub const MAX_HEADER_BYTES: u32 = 1 << 20;
/// Entities in one `ReadResponse`, for whoever answers.
pub const MAX_ENTITIES_PER_RESPONSE: usize = 1_000;

/// TCP and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One call, a whole read included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP/2 ping while a connection is quiet, and how long its answer may take.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
