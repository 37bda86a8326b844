//! The program on the command line: exit codes, output, effects on the database.

mod data;
mod memory;
mod serve;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::harness::{JWT_SECRET, PASSWORD, TestApp, process::command, required_env};

fn run(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    // a program that does not read its input may have ended already
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Standard output, then standard error.
fn output_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs the program on the database of `app`, as its owner.
fn run_on(app: &TestApp, arguments: &[&str], input: &str) -> Output {
    let mut command = command(arguments);
    command.env("DATABASE_URL", app.database_url()).env("PBKDF2_ITERATIONS", "1000");
    run(command, input)
}

#[test]
fn invalid_settings_are_reported_together() {
    let mut serve = command(&["serve"]);
    serve.env("JWT_SECRET", "short").env("LISTEN_ADDR", "nowhere").env("CACHE_MODE", "maybe").env("DB_POOL_SIZE", "0");
    serve.env("STALE_IF_ERROR", "soon").env("TRUSTED_PROXIES", "10.0.0.0/8, home").env("REDIS_URL", "http://x");
    serve.env("LOG_FORMAT", "xml").env("RUST_LOG", "a=b=c").env("REFRESH_GRACE", "11m");
    serve.env("CORS_ORIGINS", "https://shop.example,https://a.example/,*").env("PUBLIC_URL", "https://u@shop.example");
    let output = run(serve, "");
    assert_eq!(output.status.code(), Some(2));
    let text = output_text(&output);
    for error in [
        "LOG_FORMAT is \"xml\", which is none of auto, text, json",
        "RUST_LOG is \"a=b=c\"",
        "DATABASE_URL is required",
        "JWT_SECRET has 5 bytes, needs at least 32",
        "LISTEN_ADDR is \"nowhere\"",
        "CACHE_MODE is \"maybe\", which is none of full, redis, off",
        "DB_POOL_SIZE is \"0\"",
        "STALE_IF_ERROR is \"soon\"",
        "TRUSTED_PROXIES is \"home\", which is not a network",
        "REDIS_URL ",
        "REFRESH_GRACE is \"11m\", which is longer than 10m",
        "CORS_ORIGINS is \"https://a.example/\", which is not an origin",
        "CORS_ORIGINS is \"*\", which is not an origin",
        "PUBLIC_URL is \"https://u@shop.example\", which is not an http or https URL",
    ] {
        assert!(text.contains(error), "{error}:\n{text}");
    }
    assert!(!text.contains("short"), "a rejected secret is not printed");
    assert_eq!(run(command(&["nonsense"]), "").status.code(), Some(2));
    assert_eq!(run(command(&["migrate"]), "").status.code(), Some(2));
    for arguments in [&["set-password", "ann"][..], &["seed", "--products", "1"]] {
        let mut command = command(arguments);
        command.env("PBKDF2_ITERATIONS", "x");
        let text = output_text(&run(command, ""));
        assert!(text.contains("DATABASE_URL is required") && text.contains("PBKDF2_ITERATIONS"), "{text}");
    }
}

#[test]
fn secrets_are_read_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{JWT_SECRET}\n")).unwrap();
    let check = |file: &str, with_variable: bool| {
        let mut check = command(&["check"]);
        check.env("DATABASE_URL", required_env("DATABASE_URL")).env("JWT_SECRET_FILE", file);
        if with_variable {
            check.env("JWT_SECRET", JWT_SECRET);
        }
        run(check, "")
    };
    let text = output_text(&check(secret.to_str().unwrap(), false));
    assert!(text.contains("ok   database: PostgreSQL"), "{text}");
    assert_eq!(check("/nowhere", false).status.code(), Some(2));
    assert_eq!(check(secret.to_str().unwrap(), true).status.code(), Some(2));
}

#[test]
fn secrets_are_generated_once_and_consistent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let secrets = |arguments: &[&str]| run(command(&[&["secrets", "--dir", &path], arguments].concat()), "");
    let exit_code = |arguments: &[&str]| secrets(arguments).status.code();
    let printed = |arguments: &[&str]| {
        let output = secrets(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let first_output = printed(&[]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let (owner, jwt, redis) = (read("db/owner_password"), read("api/jwt_secret"), read("api/redis_password"));
    assert!(jwt.len() >= 32 && owner.len() >= 32 && owner != jwt && !first_output.contains(&jwt), "{first_output}");
    assert_eq!(read("owner/database_url"), format!("postgres://testshop:{owner}@db:5432/testshop"));
    assert_eq!(read("owner/api_database_url"), read("api/database_url"));
    assert!(!read("api/database_url").contains(&owner), "the server has no access to the owner's password");
    assert!(read("cache/users.acl").contains(&format!(">{redis} ")));
    assert!(read("api/pooled_database_url").contains("@pooler:6432/"));
    assert_eq!(printed(&["--print", "demo/user_password"]).trim(), read("demo/user_password"));

    // existing secrets are kept; a missing one is generated, and the files that contain it are rewritten
    printed(&[]);
    assert_eq!((read("db/owner_password"), read("api/jwt_secret")), (owner, jwt.clone()));
    std::fs::remove_file(dir.path().join("api/database_password")).unwrap();
    printed(&[]);
    assert!(read("owner/api_database_url").contains(&read("api/database_password")));

    // rotation: the new secret verifies, then signs, then the old one is removed; steps in another order fail
    assert_eq!((exit_code(&["--jwt", "promote"]), exit_code(&["--jwt", "remove"])), (Some(1), Some(1)));
    printed(&["--jwt", "add"]);
    let (first, second) = read("api/jwt_secret").split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(first == jwt && second.len() >= 32 && second != jwt);
    assert_eq!(exit_code(&["--jwt", "add"]), Some(1));
    printed(&["--jwt", "promote"]);
    assert_eq!(read("api/jwt_secret"), format!("{second},{first}"));
    printed(&["--jwt", "remove"]);
    assert_eq!(read("api/jwt_secret"), second);

    let before = read("api/redis_password");
    printed(&["--rotate", "api/redis_password"]);
    assert!(read("api/redis_password") != before && !read("cache/users.acl").contains(&before));
    assert_eq!(exit_code(&["--rotate", "../passwd"]), Some(1));

    let output = run(command(&["secrets", "--dir", "/proc/nowhere"]), "");
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
}

#[test]
fn secrets_keep_the_certificate_until_it_must_be_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let generate = |arguments: &[&str]| {
        let output = run(command(&[&["secrets", "--dir", path], arguments].concat()), "");
        assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
        ["tls/fullchain.pem", "tls/privkey.pem"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap())
    };
    let [certificate, key] = generate(&[]);
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "it is a private key");
    let mut latest = generate(&[]);
    assert!(latest == [certificate, key], "a second run keeps both");

    let mut assert_replaced = |arguments: &[&str], reason: &str| {
        let [certificate, key] = generate(arguments);
        assert!(certificate != latest[0] && key != latest[1], "{reason}");
        latest = [certificate, key];
    };
    let names = ["--tls-names", "shop.example,192.0.2.7"];
    assert_replaced(&names, "other names need another certificate");
    assert_replaced(&[&names[..], &["--rotate", "tls/privkey.pem"]].concat(), "it is replaced on request");
    let file = std::fs::File::options().write(true).open(dir.path().join("tls/fullchain.pem"));
    file.unwrap().set_modified(SystemTime::now() - Duration::from_hours(368 * 24)).unwrap();
    assert_replaced(&names, "it expires in less than 30 days");

    let invalid = run(command(&["secrets", "--dir", path, "--tls-names", "läden.example"]), "");
    assert!(invalid.status.code() == Some(1) && output_text(&invalid).contains("TLS_NAMES"));
}

#[tokio::test]
async fn admin_commands_manage_accounts() {
    let app = TestApp::spawn().await;
    let admin = ["create-admin", "--username", "boss", "--email", "boss@example.com"];
    let created = run_on(&app, &admin, &format!("{PASSWORD}\nnot this line"));
    assert_eq!(created.status.code(), Some(0), "{}", output_text(&created));
    let boss = app.login("boss").await;
    assert_eq!(boss.get("/api/me/").await.json()["is_staff"], true);
    let repeated = run_on(&app, &admin, PASSWORD);
    assert_eq!(repeated.status.code(), Some(1));
    let text = output_text(&repeated);
    assert!(text.contains("A user with that username already exists."), "{text}");
    let invalid = run_on(&app, &["create-admin", "--username", "b", "--email", "x", "--"], "password");
    let text = output_text(&invalid);
    assert!(text.contains("This password is too common.") && text.contains("valid email"), "{text}");

    assert_eq!(run_on(&app, &["set-password", "boss"], "another s3cret").status.code(), Some(0));
    assert_eq!(boss.get("/api/me/").await.status, 401, "a new password revokes all tokens");
    assert_eq!(run_on(&app, &["set-password", "boss"], PASSWORD).status.code(), Some(0));
    let boss = app.login("boss").await;
    assert_eq!(run_on(&app, &["deactivate", "BOSS"], "").status.code(), Some(0));
    assert_eq!(boss.get("/api/me/").await.status, 401);
    for arguments in [["deactivate", "nobody"], ["set-password", "nobody"]] {
        let output = run_on(&app, &arguments, PASSWORD);
        assert_eq!(output.status.code(), Some(1));
        assert!(output_text(&output).contains("there is no user \"nobody\""), "{}", output_text(&output));
    }
    assert_eq!(run_on(&app, &["set-password", "boss"], "").status.code(), Some(1), "no password");
}

#[tokio::test]
async fn check_reports_failures() {
    let app = TestApp::spawn().await;
    let check = |arguments: &[&str]| {
        let mut check = command(&["check"]);
        check
            .args(arguments)
            .env("DATABASE_URL", app.database_url())
            .env("REDIS_URL", required_env("REDIS_URL"))
            .env("JWT_SECRET", JWT_SECRET);
        run(check, "")
    };
    let passing = check(&[]);
    assert_eq!(passing.status.code(), Some(0), "{}", output_text(&passing));
    let failing = check(&["--redis-url", "redis://127.0.0.1:1", "--export-dir", "/nowhere"]);
    assert_eq!(failing.status.code(), Some(1));
    let text = output_text(&failing);
    assert!(text.contains("FAIL redis") && text.contains("FAIL export directory"), "{text}");
    let findings: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{findings}");
    app.batch_execute("alter table products disable trigger log_update").await;
    let text = output_text(&check(&[]));
    assert!(text.contains("FAIL triggers: disabled"), "{text}");
    app.batch_execute("alter table products enable trigger log_update").await;
    app.batch_execute("delete from refinery_schema_history where version >= 3").await;
    assert!(output_text(&check(&[])).contains("FAIL schema: lacks V3__catalogue"));
}

#[tokio::test]
async fn check_reports_expensive_stored_passwords() {
    let app = TestApp::spawn().await;
    let passwords = |iterations: &str| {
        let mut check = command(&["check", "--pbkdf2-iterations", iterations]);
        check.env("DATABASE_URL", app.setting("database-url")).env("JWT_SECRET", JWT_SECRET);
        let output = run(check, "");
        assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
        output_text(&output).lines().find(|line| line.contains(" passwords: ")).unwrap().to_owned()
    };
    assert!(passwords("600000").contains("a login takes 600000 iterations"), "{}", passwords("600000"));
    let insert = "insert into users (username, email, password) values ('django', 'django@example.com', $1)";
    let stored = format!("pbkdf2_sha256$1000000$salt${}=", "A".repeat(43));
    app.execute(insert, &[&stored]).await;
    let finding = passwords("600000");
    assert!(finding.contains("1000000 iterations, more than PBKDF2_ITERATIONS (600000)"), "{finding}");
    assert!(passwords("1000000").contains("a login takes 1000000 iterations"), "{}", passwords("1000000"));
}

#[test]
fn help_routes_and_completions_print() {
    let help = output_text(&run(command(&["serve", "--help"]), ""));
    for variable in [
        "DATABASE_URL",
        "REDIS_URL",
        "JWT_SECRET",
        "LISTEN_ADDR",
        "ADMIN_ADDR",
        "CACHE_MODE",
        "STALE_IF_ERROR",
        "PBKDF2_ITERATIONS",
        "ACCESS_TOKEN_TTL",
        "REFRESH_TOKEN_TTL",
        "REFRESH_GRACE",
        "LEASE",
        "SESSION_TTL",
        "RATE_LIMIT",
        "TRUSTED_PROXIES",
        "CORS_ORIGINS",
        "PUBLIC_URL",
        "ADMIN_PAGE",
        "DB_POOL_SIZE",
        "MAX_CONNECTIONS",
        "MAX_BODY_BYTES",
        "MEMORY_LIMIT",
        "LOG_FORMAT",
        "RUST_LOG",
    ] {
        assert!(help.contains(&format!("[env: {variable}")), "{variable}");
    }
    assert!(help.contains("Signals:") && help.contains("Examples:\n  testshop serve --migrate"), "{help}");
    assert!(!help.contains('\x1b'), "only a terminal gets colours");
    let routes = run(command(&["routes", "--json"]), "").stdout;
    let routes: Value = serde_json::from_slice(&routes).unwrap();
    assert_eq!(routes[0], json!({"method": "POST", "path": "/api/register/", "access": "anyone"}));
    let document: Value = serde_json::from_slice(&run(command(&["openapi"]), "").stdout).unwrap();
    assert_eq!(document, testshop::routes::openapi_document());
    let routes = output_text(&run(command(&["routes"]), ""));
    assert!(routes.contains("DELETE  /api/products/{id}/      staff"), "{routes}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(output_text(&run(command(&["completions", shell]), "")).contains("create-admin"), "{shell}");
    }
}
