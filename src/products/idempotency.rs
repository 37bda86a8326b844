//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a creation that its client repeats, because it never
//! heard the answer, happens once. Key, product and answer are one transaction.

use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::{input::ProductInput, product::Product};
use crate::{
    app::App,
    db::{
        Transaction, TxError,
        pool::Params,
        statements::{IDEMPOTENCY_CLAIM, IDEMPOTENCY_COMPLETE, IDEMPOTENCY_LOOKUP, PRODUCTS_CREATE},
    },
    digest::sha256,
    error::{Error, Result},
    http::Request,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the answer is an earlier one.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_LENGTH: usize = 255;

/// A key of a user, and what it was sent with.
pub(crate) struct Key {
    user: i64,
    key: String,
    body: Vec<u8>,
}

/// What came of a creation under a key.
pub(crate) struct Outcome {
    /// The product as JSON.
    pub(crate) json: Vec<u8>,
    /// It was made before.
    pub(crate) replayed: bool,
}

/// The key of a request, if it carries one.
pub(crate) fn key_of(request: &Request) -> Result<Option<String>> {
    let mut values = request.headers().get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().map(str::trim).unwrap_or_default();
    if key.is_empty() || key.len() > MAX_LENGTH || values.next().is_some() {
        let words = format!("Ensure this header has from 1 to {MAX_LENGTH} visible characters, once.");
        return Err(Error::field("Idempotency-Key", words));
    }
    Ok(Some(key.to_owned()))
}

impl Key {
    /// A key with the body that it stands for, whatever the order of its fields.
    pub(crate) fn new(user: i64, key: String, body: &Map<String, Value>) -> Result<Self> {
        let text = serde_json::to_vec(body).map_err(Error::internal)?;
        Ok(Self { user, key, body: sha256(&[&text]).to_vec() })
    }

    /// Whether it stands for another body already.
    pub(crate) async fn is_taken(&self, app: &App) -> Result<bool> {
        let Self { user, key, body } = self;
        let known = app.database.row(&IDEMPOTENCY_LOOKUP, &[user, key, body]).await?;
        Ok(known.is_some_and(|row| !row.get::<_, bool>(0)))
    }

    /// Makes the product, or gives the one that was made under this key.
    pub(crate) async fn create(&self, app: &App, input: &ProductInput, params: Params<'_>) -> Result<Outcome> {
        let all = [&IDEMPOTENCY_CLAIM, &IDEMPOTENCY_LOOKUP, &IDEMPOTENCY_COMPLETE, &PRODUCTS_CREATE];
        let mut tries = 0;
        loop {
            tries += 1;
            let transaction = Transaction::on(&app.database, &all).await?;
            let outcome = self.attempt(&transaction, input, params).await;
            if let Some(outcome) = transaction.end(&app.database, outcome, tries).await? {
                return Ok(outcome);
            }
        }
    }

    async fn attempt(
        &self,
        transaction: &Transaction,
        input: &ProductInput,
        params: Params<'_>,
    ) -> Result<Outcome, TxError> {
        let Self { user, key, body } = self;
        transaction.command("begin").await?;
        if transaction.rows(&IDEMPOTENCY_CLAIM, &[user, key, body]).await?.is_empty() {
            let known = transaction.rows(&IDEMPOTENCY_LOOKUP, &[user, key, body]).await?;
            // an answer is there: whoever took the key has committed both, or neither
            let answer = known.first().filter(|row| row.get(0)).and_then(|row| row.get::<_, Option<String>>(1));
            let answer = answer.ok_or(Error::IdempotencyKeyReused)?;
            transaction.command("commit").await?;
            return Ok(Outcome { json: answer.into_bytes(), replayed: true });
        }
        let made = transaction.rows(&PRODUCTS_CREATE, params).await?;
        let json = json_of(made.first().ok_or_else(|| Error::from(input.no_such_category()))?);
        transaction.rows(&IDEMPOTENCY_COMPLETE, &[user, key, &json]).await?;
        transaction.command("commit").await?;
        Ok(Outcome { json: json.into_bytes(), replayed: false })
    }
}

fn json_of(row: &Row) -> String {
    let json = Product::from_columns(row, 0).to_json();
    String::from_utf8(json).unwrap_or_else(|error| unreachable!("JSON of texts is a text: {error}"))
}

/// Marks a reply as an earlier one.
pub(crate) fn mark(reply: &mut crate::http::Response) {
    reply.headers_mut().insert(REPLAYED, const { HeaderValue::from_static("true") });
}
