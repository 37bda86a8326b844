//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a client that did not receive the response can repeat
//! a create without creating a second product, and an import without importing the file again. The key and the response
//! are stored in the transaction of the request.

use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::{input::ProductInput, product::Product};
use crate::{
    app::App,
    db::{
        DbError, Transaction, TxError,
        pool::{Params, Queryable},
        statements::{IDEMPOTENCY_CLAIM, IDEMPOTENCY_COMPLETE, IDEMPOTENCY_LOOKUP, PRODUCTS_CREATE},
    },
    digest::sha256,
    error::{Error, Result},
    http::{Request, Response},
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a response that was stored by an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY_BYTES: usize = 255;

/// A user's key, and the hash of the request that it was sent with.
#[derive(Clone)]
pub(crate) struct Key {
    user: i64,
    key: String,
    body_hash: Vec<u8>,
}

/// The result of a create with a key.
pub(crate) struct Outcome {
    /// The product as JSON.
    pub(crate) json: Vec<u8>,
    /// Whether an earlier request created the product.
    pub(crate) replayed: bool,
}

/// Returns the key in the request's header, if there is one.
pub(crate) fn key_of(request: &Request) -> Result<Option<String>> {
    let mut values = request.headers().get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().map(str::trim).unwrap_or_default();
    if key.is_empty() || key.len() > MAX_KEY_BYTES || values.next().is_some() {
        let message = format!("Ensure this header has from 1 to {MAX_KEY_BYTES} visible characters, once.");
        return Err(Error::field("Idempotency-Key", message));
    }
    Ok(Some(key.to_owned()))
}

impl Key {
    /// Hashes the body regardless of the order of its fields.
    pub(crate) fn new(user: i64, key: String, body: &Map<String, Value>) -> Result<Self> {
        // the map is sorted by field name
        let text = serde_json::to_vec(body).map_err(Error::internal)?;
        Ok(Self { user, key, body_hash: sha256(&[&text]).to_vec() })
    }

    /// `hash` is that of the whole request.
    pub(crate) fn from_hash(user: i64, key: String, hash: [u8; 32]) -> Self {
        Self { user, key, body_hash: hash.to_vec() }
    }

    /// Claims the key for an open transaction, and waits for another one that is claiming it. Returns the response if
    /// the request already has one, and an error if the key was used with another request.
    pub(crate) async fn claim(&self, client: &impl Queryable) -> Result<Option<String>, TxError> {
        let Self { user, key, body_hash } = self;
        if !client.rows(&IDEMPOTENCY_CLAIM, &[user, key, body_hash]).await?.is_empty() {
            return Ok(None);
        }
        let stored = client.rows(&IDEMPOTENCY_LOOKUP, &[user, key, body_hash]).await?;
        // a committed key always has a response: both are written in one transaction
        let response = stored.first().filter(|row| row.get("is_same_body"));
        let response = response.and_then(|row| row.get::<_, Option<String>>("response"));
        Ok(Some(response.ok_or(Error::IdempotencyKeyReused)?))
    }

    /// Stores the response under the claimed key.
    pub(crate) async fn complete(&self, client: &impl Queryable, response: &str) -> Result<(), DbError> {
        let Self { user, key, .. } = self;
        client.rows(&IDEMPOTENCY_COMPLETE, &[user, key, &response]).await.map(drop)
    }

    pub(crate) async fn is_reused_with_other_body(&self, app: &App) -> Result<bool> {
        let Self { user, key, body_hash } = self;
        let stored = app.database.row(&IDEMPOTENCY_LOOKUP, &[user, key, body_hash]).await?;
        Ok(stored.is_some_and(|row| !row.get::<_, bool>("is_same_body")))
    }

    /// Creates the product, or returns the one that was created with this key.
    pub(crate) async fn create(&self, app: &App, input: &ProductInput, params: Params<'_>) -> Result<Outcome> {
        let statements = [&IDEMPOTENCY_CLAIM, &IDEMPOTENCY_LOOKUP, &IDEMPOTENCY_COMPLETE, &PRODUCTS_CREATE];
        let attempt = |transaction: Transaction| async move {
            let outcome = self.try_create(&transaction, input, params).await;
            (transaction, outcome)
        };
        Transaction::run(&app.database, &statements, attempt).await
    }

    async fn try_create(
        &self,
        transaction: &Transaction,
        input: &ProductInput,
        params: Params<'_>,
    ) -> Result<Outcome, TxError> {
        transaction.run_command("begin").await?;
        if let Some(response) = self.claim(transaction.connection()).await? {
            transaction.run_command("commit").await?;
            return Ok(Outcome { json: response.into_bytes(), replayed: true });
        }
        let created = transaction.rows(&PRODUCTS_CREATE, params).await?;
        let json = product_json(created.first().ok_or_else(|| Error::from(input.category_not_found()))?);
        self.complete(transaction.connection(), &json).await?;
        transaction.run_command("commit").await?;
        Ok(Outcome { json: json.into_bytes(), replayed: false })
    }
}

fn product_json(row: &Row) -> String {
    let json = Product::from_columns(row, 0).to_json();
    String::from_utf8(json).unwrap_or_else(|error| unreachable!("JSON of strings is UTF-8: {error}"))
}

/// Adds the header `Idempotent-Replayed`.
pub(crate) fn mark_replayed(response: &mut Response) {
    response.headers_mut().insert(REPLAYED, const { HeaderValue::from_static("true") });
}
