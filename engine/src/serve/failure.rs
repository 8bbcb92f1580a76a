//! Why a call is refused: one reason, one gRPC status and one HTTP status each, and the field that is to blame.
//!
//! All protocols answer from here, so that the same mistake reads the same everywhere. gRPC carries a
//! `google.rpc.ErrorInfo` beside the message, REST a JSON object. What must hold: a message says what is wrong and
//! where; nothing of the server's own (paths, other callers' values) is in it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prost::Message;
use tonic::{Code, Status};
use velosql_proto::prost_types::Any;
use velosql_proto::rpc;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The message cannot be read, or contradicts itself.
    Malformed,
    /// A feature is not there.
    MissingField,
    /// A field that the model does not know.
    ExtraField,
    /// A value of another type than the field's.
    WrongType,
    /// NaN or infinite.
    NotFinite,
    /// Null, where the model was trained without nulls.
    NullValue,
    /// A category that the model was not trained on.
    UnknownCategory,
    /// No model of that name.
    UnknownModel,
    /// No version of that number or alias.
    UnknownVersion,
    /// No such path.
    UnknownPath,
    /// A model that has nothing to predict with, such as one of DBSCAN.
    NotServable,
    /// No default model for a task, and several to choose from.
    Ambiguous,
    /// More rows in a call than the limit.
    TooManyRows,
    /// A message larger than the limit.
    MessageTooLarge,
    /// More calls at once than the limit.
    Busy,
    /// No token, or a wrong one.
    Unauthenticated,
    /// A fault of ours.
    Internal,
}

/// A refused call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
    /// The field that is to blame.
    pub field: Option<String>,
    /// The number of the row that is to blame, where there are several.
    pub row: Option<usize>,
}

/// What a call answers.
pub type Answered<T> = Result<T, Failure>;

impl Reason {
    /// The word that programs compare.
    pub fn word(self) -> &'static str {
        self.all().0
    }

    /// The gRPC status.
    pub fn code(self) -> Code {
        self.all().1
    }

    /// The HTTP status.
    pub fn http(self) -> StatusCode {
        self.all().2
    }

    fn all(self) -> (&'static str, Code, StatusCode) {
        match self {
            Self::Malformed => ("MALFORMED", Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::MissingField => ("MISSING_FIELD", Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::ExtraField => ("EXTRA_FIELD", Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::WrongType => ("WRONG_TYPE", Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::NotFinite => ("NOT_FINITE", Code::InvalidArgument, StatusCode::UNPROCESSABLE_ENTITY),
            Self::NullValue => ("NULL_VALUE", Code::InvalidArgument, StatusCode::UNPROCESSABLE_ENTITY),
            // Not wrong in itself: a model trained later may know it.
            Self::UnknownCategory => ("UNKNOWN_CATEGORY", Code::OutOfRange, StatusCode::UNPROCESSABLE_ENTITY),
            Self::UnknownModel => ("UNKNOWN_MODEL", Code::NotFound, StatusCode::NOT_FOUND),
            Self::UnknownVersion => ("UNKNOWN_VERSION", Code::NotFound, StatusCode::NOT_FOUND),
            Self::UnknownPath => ("UNKNOWN_PATH", Code::Unimplemented, StatusCode::NOT_FOUND),
            Self::NotServable => ("NOT_SERVABLE", Code::FailedPrecondition, StatusCode::CONFLICT),
            Self::Ambiguous => ("AMBIGUOUS_MODEL", Code::FailedPrecondition, StatusCode::CONFLICT),
            Self::TooManyRows => ("TOO_MANY_ROWS", Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE),
            Self::MessageTooLarge => ("MESSAGE_TOO_LARGE", Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE),
            // The status that clients' retry policies know.
            Self::Busy => ("BUSY", Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
            Self::Unauthenticated => ("UNAUTHENTICATED", Code::Unauthenticated, StatusCode::UNAUTHORIZED),
            Self::Internal => ("INTERNAL", Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl Failure {
    /// A failure that no field is to blame for.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: None, row: None }
    }

    /// A failure of a field.
    pub fn of(reason: Reason, field: &str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: Some(field.to_string()), row: None }
    }

    /// Names the row, counted from 0; a row that is already known stays.
    pub fn at(mut self, row: usize) -> Self {
        self.row.get_or_insert(row);
        self
    }

    /// The sentence, with the row where there are several.
    pub fn sentence(&self) -> String {
        match self.row {
            Some(row) => format!("row {row}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = failure.reason.code();
        let field = failure.field.iter().map(|field| ("field".to_string(), field.clone()));
        let row = failure.row.iter().map(|row| ("row".to_string(), row.to_string()));
        let info = rpc::ErrorInfo { reason: failure.reason.word().into(), domain: "velosql".into(), metadata: field.chain(row).collect() };
        let info = Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: info.encode_to_vec() };
        let message = failure.sentence();
        let details = rpc::Status { code: code as i32, message: message.clone(), details: vec![info] };
        Status::with_details(code, message, details.encode_to_vec().into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({ "error": self.sentence(), "reason": self.reason.word() });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        if let Some(row) = self.row {
            body["row"] = row.into();
        }
        let mut response = (self.reason.http(), Json(body)).into_response();
        match self.reason {
            Reason::Busy => response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1")),
            Reason::Unauthenticated => response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => None,
        };
        response
    }
}
