//! Messages: envelope, header section, trace fields and stamps. Pure.

pub mod authentication_results;
pub mod body;
pub mod header;
pub mod queue_id;
pub mod received;
pub mod stamp;
pub mod tenant;
