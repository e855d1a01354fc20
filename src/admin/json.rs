//! JSON responses of the API. Texts that strangers chose are included unchanged, except that characters with an effect
//! on terminals or editors are written as JSON escapes, which mean the same.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::printable;

pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => ([(CONTENT_TYPE, "application/json")], escaped(text)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    }
}

/// JSON text, or lines of it, with such characters escaped.
pub(super) fn escaped(text: Vec<u8>) -> Vec<u8> {
    let shown = std::str::from_utf8(&text).map(printable::json);
    match shown {
        Ok(std::borrow::Cow::Owned(shown)) => shown.into_bytes(),
        Ok(std::borrow::Cow::Borrowed(_)) | Err(_) => text,
    }
}
