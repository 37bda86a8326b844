//! Login, list, update and export with axum, sqlx and Redis. One statement returns the list; Redis holds it rendered
//! until the next write.

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use redis::{AsyncCommands, aio::ConnectionManager};
use rust_xlsxwriter::{Format, Workbook};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool, postgres::PgPoolOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIST: &str = "peer-axum:products";
const LIST_SECONDS: u64 = 300;

#[derive(Clone)]
struct Shop {
    pool: PgPool,
    redis: ConnectionManager,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Serialize, FromRow)]
struct Product {
    id: i64,
    name: String,
    description: String,
    category_name: String,
    price: f64,
    created_at: DateTime<Utc>,
    tags: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: i64,
    staff: bool,
    exp: i64,
}

struct AppError(StatusCode);

impl<E: std::error::Error> From<E> for AppError {
    fn from(error: E) -> Self {
        eprintln!("{error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// Claims of a valid bearer token.
impl FromRequestParts<Shop> for Claims {
    type Rejection = AppError;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, AppError> {
        let rejected = || AppError(StatusCode::UNAUTHORIZED);
        let header =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(rejected)?;
        let token = header.strip_prefix("Bearer ").ok_or_else(rejected)?;
        let decoded = jsonwebtoken::decode(token, &shop.decoding, &Validation::default());
        decoded.map(|token| token.claims).map_err(|_| rejected())
    }
}

async fn products(pool: &PgPool) -> Result<Vec<Product>, sqlx::Error> {
    sqlx::query_as(include_str!("list.sql")).fetch_all(pool).await
}

async fn list(State(mut shop): State<Shop>, _: Claims) -> Result<Response, AppError> {
    let body = match shop.redis.get::<_, Option<Vec<u8>>>(LIST).await? {
        Some(body) => body,
        None => {
            let body = serde_json::to_vec(&products(&shop.pool).await?)?;
            let () = shop.redis.set_ex(LIST, &body, LIST_SECONDS).await?;
            body
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Deserialize)]
struct ProductUpdate {
    name: Option<String>,
    price: Option<f64>,
}

async fn update_product(
    State(mut shop): State<Shop>,
    claims: Claims,
    Path(id): Path<i64>,
    Json(update): Json<ProductUpdate>,
) -> Result<StatusCode, AppError> {
    if !claims.staff {
        return Err(AppError(StatusCode::FORBIDDEN));
    }
    let changed = sqlx::query(
        "update products set name = coalesce($2, name), price = coalesce($3::float8::numeric, price) where id = $1",
    )
    .bind(id)
    .bind(update.name)
    .bind(update.price)
    .execute(&shop.pool)
    .await?;
    let () = shop.redis.del(LIST).await?;
    if changed.rows_affected() == 1 { Ok(StatusCode::OK) } else { Err(AppError(StatusCode::NOT_FOUND)) }
}

async fn export(State(shop): State<Shop>, _: Claims) -> Result<Response, AppError> {
    let products = products(&shop.pool).await?;
    let file = tokio::task::spawn_blocking(move || workbook(&products)).await??;
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"products.xlsx\""),
    ];
    Ok((headers, Body::from(file)).into_response())
}

fn workbook(products: &[Product]) -> Result<Vec<u8>, rust_xlsxwriter::XlsxError> {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet_with_constant_memory()?.set_name("Products")?;
    let date = Format::new().set_num_format("yyyy-mm-dd hh:mm:ss");
    for (column, title) in (0..).zip(["ID", "Name", "Description", "Category", "Price", "Created at", "Tags"]) {
        sheet.write(0, column, title)?;
    }
    for (row, product) in (1..).zip(products) {
        sheet.write(row, 0, product.id)?;
        sheet.write(row, 1, &product.name)?;
        sheet.write(row, 2, &product.description)?;
        sheet.write(row, 3, &product.category_name)?;
        sheet.write(row, 4, product.price)?;
        sheet.write_with_format(row, 5, &product.created_at.naive_utc(), &date)?;
        sheet.write(row, 6, product.tags.join(", "))?;
    }
    book.save_to_buffer()
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

#[derive(FromRow)]
struct Account {
    id: i64,
    password: String,
    is_staff: bool,
}

async fn login(State(shop): State<Shop>, Json(login): Json<Login>) -> Result<Json<serde_json::Value>, AppError> {
    let rejected = AppError(StatusCode::UNAUTHORIZED);
    let account: Option<Account> =
        sqlx::query_as("select id, password, is_staff from users where fold_case(username) = fold_case($1) and is_active")
            .bind(&login.username)
            .fetch_optional(&shop.pool)
            .await?;
    let Some(account) = account else { return Err(rejected) };
    let stored = account.password;
    if !tokio::task::spawn_blocking(move || password_matches(&login.password, &stored)).await? {
        return Err(rejected);
    }
    let claims = Claims { sub: account.id, staff: account.is_staff, exp: Utc::now().timestamp() + 3600 };
    let token = jsonwebtoken::encode(&Header::default(), &claims, &shop.encoding)?;
    Ok(Json(serde_json::json!({ "token": token })))
}

/// Whether the password matches `pbkdf2_sha256$iterations$salt$hash`.
fn password_matches(password: &str, stored: &str) -> bool {
    let parts: Vec<&str> = stored.split('$').collect();
    let [_, iterations, salt, hash] = parts[..] else { return false };
    let (Ok(iterations), Ok(hash)) = (iterations.parse(), STANDARD.decode(hash)) else { return false };
    pbkdf2::pbkdf2_hmac_array::<sha2::Sha256, 32>(password.as_bytes(), salt.as_bytes(), iterations)[..] == hash[..]
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let setting = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let secret = setting("JWT_SECRET")?;
    let shop = Shop {
        pool: PgPoolOptions::new().max_connections(16).connect(&setting("DATABASE_URL")?).await?,
        redis: redis::Client::open(setting("REDIS_URL")?)?.get_connection_manager().await?,
        encoding: EncodingKey::from_secret(secret.as_bytes()),
        decoding: DecodingKey::from_secret(secret.as_bytes()),
    };
    let routes = Router::new()
        .route("/api/login/", post(login))
        .route("/api/products/", get(list))
        .route("/api/products/export/", get(export))
        .route("/api/products/{id}/", patch(update_product))
        .with_state(shop);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", setting("PORT")?)).await?;
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |socket| drop(socket.set_nodelay(true))), routes).await?)
}
