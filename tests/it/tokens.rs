//! Access tokens: forged, expired and malformed ones are rejected with the error bodies of SimpleJWT.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    harness::{JWT_SECRET, TestApp, TestAppBuilder},
    stress::record_result,
};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// Valid claims for user 1.
fn claims() -> Value {
    json!({
        "sub": "1", "jti": "0123456789abcdef", "iat": now(), "exp": now() + 60,
        "iss": "testshop", "aud": "testshop", "token_type": "access",
    })
}

/// Returns the claims with one changed.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(header: &Value, claims: &Value, secret: &str, algorithm: hmac::Algorithm) -> String {
    let message = [header, claims].map(|part| BASE64.encode(part.to_string())).join(".");
    let signature = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, JWT_SECRET, hmac::HMAC_SHA256)
}

const INVALID: &str = "Token is invalid";

#[tokio::test]
async fn forged_and_malformed_tokens_are_rejected() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let valid = token(&claims());
    assert_eq!(app.anonymous().with_token(&valid).get("/api/me/").await.status, 200);
    let parts: Vec<&str> = valid.split('.').collect();
    let issued: Vec<&str> = ann.token().split('.').collect();
    let unsigned = |alg: &str| {
        let head = BASE64.encode(json!({"alg": alg, "typ": "JWT"}).to_string());
        format!("{head}.{}.", parts[1])
    };
    let altered = BASE64.encode(claims_with("sub", json!("2")).to_string());
    let mut flipped = valid.clone().into_bytes();
    let middle = parts[0].len() + parts[1].len() + 10;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };

    let forged: Vec<(&str, String)> = vec![
        ("not a token", "nonsense".into()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{valid}.x")),
        ("empty parts", "..".into()),
        ("invalid base64", format!("{}.!!.{}", parts[0], parts[2])),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg NONE", unsigned("NONE")),
        ("alg empty", unsigned("")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("payload of another user", format!("{}.{altered}.{}", parts[0], parts[2])),
        ("payload and signature of different tokens", format!("{}.{}.{}", issued[0], issued[1], parts[2])),
        ("changed signature", String::from_utf8(flipped).unwrap()),
        ("another secret", signed(&header, &claims(), "another secret, of more than 32 bytes!", hmac::HMAC_SHA256)),
        ("empty secret", signed(&header, &claims(), "", hmac::HMAC_SHA256)),
        ("HS384", signed(&json!({"alg": "HS384"}), &claims(), JWT_SECRET, hmac::HMAC_SHA384)),
        ("HS512", signed(&json!({"alg": "HS512"}), &claims(), JWT_SECRET, hmac::HMAC_SHA512)),
        ("HS256 in the header, HS512 signature", signed(&header, &claims(), JWT_SECRET, hmac::HMAC_SHA512)),
        ("RS256", signed(&json!({"alg": "RS256"}), &claims(), JWT_SECRET, hmac::HMAC_SHA256)),
        ("ES256", signed(&json!({"alg": "ES256"}), &claims(), JWT_SECRET, hmac::HMAC_SHA256)),
        ("crit", signed(&json!({"alg": "HS256", "crit": ["b64"]}), &claims(), JWT_SECRET, hmac::HMAC_SHA256)),
        ("payload is an array", token(&json!([]))),
        ("no sub", token(&claims_without("sub"))),
        ("no jti", token(&claims_without("jti"))),
        ("no iat", token(&claims_without("iat"))),
        ("no exp", token(&claims_without("exp"))),
        ("no iss", token(&claims_without("iss"))),
        ("no aud", token(&claims_without("aud"))),
        ("no token_type", token(&claims_without("token_type"))),
        ("a refresh token", token(&claims_with("token_type", json!("refresh")))),
        ("another issuer", token(&claims_with("iss", json!("shop")))),
        ("iss is a list", token(&claims_with("iss", json!(["testshop"])))),
        ("another audience", token(&claims_with("aud", json!("other")))),
        ("aud is a number", token(&claims_with("aud", json!(1)))),
        ("aud is an object", token(&claims_with("aud", json!({})))),
        ("sub is a JSON number", token(&claims_with("sub", json!(1)))),
        ("sub is not numeric", token(&claims_with("sub", json!("ann")))),
        ("sub of an unknown user", token(&claims_with("sub", json!("999999")))),
        ("sub negative", token(&claims_with("sub", json!("-1")))),
        ("sub too large", token(&claims_with("sub", json!("99999999999999999999")))),
        ("sub with SQL", token(&claims_with("sub", json!("1 or 1=1")))),
        ("exp is a string", token(&claims_with("exp", json!("9999999999")))),
        ("exp is null", token(&claims_with("exp", Value::Null))),
        ("iat in the future", token(&claims_with("iat", json!(now() + 3600)))),
        ("nbf in the future", token(&claims_with("nbf", json!(now() + 3600)))),
        ("jti empty", token(&claims_with("jti", json!("")))),
        ("jti is a number", token(&claims_with("jti", json!(5)))),
        ("another generation", token(&claims_with("generation", json!(1)))),
        ("very long", token(&claims_with("jti", json!("x".repeat(8000))))),
    ];
    let count = forged.len();
    assert!(count >= 40);
    for (case, token) in forged {
        let response = app.anonymous().with_token(&token).get("/api/me/").await;
        assert_eq!(response.status, 401, "{case}");
        let error = response.json();
        assert_eq!(error["code"], "token_not_valid", "{case}");
        assert_eq!(error["messages"][0]["message"], INVALID, "{case}");
        assert_eq!(response.header("www-authenticate"), "Bearer realm=\"api\"", "{case}");
    }
    record_result("forged, expired and malformed tokens are rejected", &format!("{count} tokens: 401 each"));
}

#[tokio::test]
async fn expired_token_is_reported_only_with_valid_signature() {
    let app = TestApp::spawn().await;
    app.create_user("ann").await;
    let expired = claims_with("exp", json!(now() - 1));
    let response = app.anonymous().with_token(&token(&expired)).get("/api/me/").await;
    assert_eq!(
        response.status_and_json(),
        (
            401,
            json!({
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is expired"}],
            })
        )
    );
    let foreign =
        signed(&json!({"alg": "HS256"}), &expired, "another secret, of more than 32 bytes!", hmac::HMAC_SHA256);
    let response = app.anonymous().with_token(&foreign).get("/api/me/").await;
    assert_eq!(response.json()["messages"][0]["message"], INVALID);
}

#[tokio::test]
async fn authorization_header_errors_are_distinguished() {
    let app = TestApp::spawn().await;
    let ann = app.create_user("ann").await;
    let response =
        async |value: &str| app.anonymous().with_header("authorization", value).get("/api/me/").await.status_and_json();
    let not_provided = (401, json!({"detail": "Authentication credentials were not provided."}));
    for value in ["", "Basic YTpi", "Token abc", &format!("bearer {}", ann.token()), ann.token()] {
        assert_eq!(response(value).await, not_provided, "{value}");
    }
    let bad_header = json!({
        "detail": "Authorization header must contain two space-delimited values",
        "code": "bad_authorization_header",
    });
    for value in ["Bearer", "Bearer a b", "Bearer  "] {
        assert_eq!(response(value).await, (401, bad_header.clone()), "{value}");
    }
}

#[tokio::test]
async fn jwt_secret_rotation_keeps_sessions() {
    let old = "the old secret: more than 32 bytes......";
    let new = "the new secret: more than 32 bytes......";
    let app = TestAppBuilder::default().with("jwt-secret", format!("{new}, {old}")).spawn().await;
    let ann = app.create_user("ann").await;
    let header = json!({"alg": "HS256"});
    for secret in [old, new] {
        let token = signed(&header, &claims(), secret, hmac::HMAC_SHA256);
        assert_eq!(app.anonymous().with_token(&token).get("/api/me/").await.status, 200);
    }
    let (message, signature) = ann.token().rsplit_once('.').unwrap();
    let by_new = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, new.as_bytes()), message.as_bytes());
    assert_eq!(signature, BASE64.encode(by_new), "the first secret signs");
}

#[tokio::test]
async fn tokens_contain_documented_claims() {
    let app = TestAppBuilder::default().with("access-token-ttl", "5m").spawn().await;
    let ann = app.create_user("ann").await;
    let parts: Vec<&str> = ann.token().split('.').collect();
    let decode = |part: &str| serde_json::from_slice::<Value>(&BASE64.decode(part).unwrap()).unwrap();
    assert_eq!(decode(parts[0])["alg"], "HS256");
    let claims = decode(parts[1]);
    assert_eq!((&claims["sub"], &claims["iss"], &claims["aud"]), (&json!("1"), &json!("testshop"), &json!("testshop")));
    assert_eq!(claims["token_type"], "access");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    assert!(claims["jti"].as_str().unwrap().len() >= 32);
}
