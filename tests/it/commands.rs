//! The program as operators run it: exit codes, words, what it leaves in the database.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use calamine::{Reader, Xlsx};

use crate::harness::{JWT_SECRET, PASSWORD, Process, TestApp, process::command, required_env};

fn finished(mut command: Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    // one that does not read may be gone already
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn in_shop(app: &TestApp, arguments: &[&str], input: &str) -> Output {
    let mut command = command(arguments);
    command.env("DATABASE_URL", app.database_url()).env("PBKDF2_ITERATIONS", "1000");
    finished(command, input)
}

#[test]
fn invalid_settings_are_reported_together() {
    let mut serve = command(&["serve"]);
    serve.env("JWT_SECRET", "short").env("LISTEN_ADDR", "nowhere").env("CACHE_MODE", "maybe").env("DB_POOL_SIZE", "0");
    serve.env("STALE_IF_ERROR", "soon").env("TRUSTED_PROXIES", "10.0.0.0/8, home").env("REDIS_URL", "http://x");
    serve.env("LOG_FORMAT", "xml").env("RUST_LOG", "a=b=c");
    let output = finished(serve, "");
    assert_eq!(output.status.code(), Some(2));
    let words = said(&output);
    for fault in [
        "LOG_FORMAT is \"xml\", which is none of auto, text, json",
        "RUST_LOG is \"a=b=c\"",
        "DATABASE_URL is required",
        "JWT_SECRET has 5 bytes, needs at least 32",
        "LISTEN_ADDR is \"nowhere\"",
        "CACHE_MODE is \"maybe\", which is none of full, redis, off",
        "DB_POOL_SIZE is \"0\"",
        "STALE_IF_ERROR is \"soon\"",
        "TRUSTED_PROXIES is \"home\", which is no network",
        "REDIS_URL ",
    ] {
        assert!(words.contains(fault), "{fault}:\n{words}");
    }
    assert!(!words.contains("short"), "a secret, even a poor one, is not repeated");
    assert_eq!(finished(command(&["nonsense"]), "").status.code(), Some(2));
    assert_eq!(finished(command(&["migrate"]), "").status.code(), Some(2));
    for arguments in [&["set-password", "ann"][..], &["seed", "--products", "1"]] {
        let mut both = command(arguments);
        let words = said(&finished(
            {
                both.env("PBKDF2_ITERATIONS", "x");
                both
            },
            "",
        ));
        assert!(words.contains("DATABASE_URL is required") && words.contains("PBKDF2_ITERATIONS"), "{words}");
    }
}

#[test]
fn secrets_are_read_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{JWT_SECRET}\n")).unwrap();
    let check = |file: &str, both: bool| {
        let mut check = command(&["check"]);
        check.env("DATABASE_URL", required_env("DATABASE_URL")).env("JWT_SECRET_FILE", file);
        if both {
            check.env("JWT_SECRET", JWT_SECRET);
        }
        finished(check, "")
    };
    let good = check(secret.to_str().unwrap(), false);
    assert!(said(&good).contains("ok   database: PostgreSQL"), "{}", said(&good));
    assert_eq!(check("/nowhere", false).status.code(), Some(2));
    assert_eq!(check(secret.to_str().unwrap(), true).status.code(), Some(2));
}

#[tokio::test]
async fn admin_commands_manage_accounts() {
    let app = TestApp::spawn().await;
    let admin = ["create-admin", "--username", "boss", "--email", "boss@example.com"];
    let made = in_shop(&app, &admin, &format!("{PASSWORD}\nnot this line"));
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let boss = app.login("boss").await;
    assert_eq!(boss.get("/api/me/").await.json()["is_staff"], true);
    let again = in_shop(&app, &admin, PASSWORD);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("A user with that username already exists."), "{}", said(&again));
    let poor = in_shop(&app, &["create-admin", "--username", "b", "--email", "x", "--"], "password");
    assert!(
        said(&poor).contains("This password is too common.") && said(&poor).contains("valid email"),
        "{}",
        said(&poor)
    );

    assert_eq!(in_shop(&app, &["set-password", "boss"], "another s3cret").status.code(), Some(0));
    assert_eq!(boss.get("/api/me/").await.status, 401, "what was logged in is logged out");
    assert_eq!(in_shop(&app, &["set-password", "boss"], PASSWORD).status.code(), Some(0));
    let boss = app.login("boss").await;
    assert_eq!(in_shop(&app, &["deactivate", "BOSS"], "").status.code(), Some(0));
    assert_eq!(boss.get("/api/me/").await.status, 401);
    for missing in [["deactivate", "nobody"], ["set-password", "nobody"]] {
        let output = in_shop(&app, &missing, PASSWORD);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("there is no user \"nobody\""), "{}", said(&output));
    }
    assert_eq!(in_shop(&app, &["set-password", "boss"], "").status.code(), Some(1), "no password");
}

#[tokio::test]
async fn demo_data_is_deterministic_and_visible_at_once() {
    let shops = [TestApp::spawn().await, TestApp::spawn().await];
    let mut lists = Vec::new();
    for app in &shops {
        let seeded = in_shop(app, &["seed", "--products", "300", "--users", "2"], PASSWORD);
        assert_eq!(seeded.status.code(), Some(0), "{}", said(&seeded));
        let user = app.login("user2").await;
        lists.push(user.get("/api/products/").await);
        assert_eq!(in_shop(app, &["seed", "--products", "5", "--if-empty"], "").status.code(), Some(0));
        assert_eq!(user.get("/api/products/").await.json().as_array().unwrap().len(), 300);
        assert_eq!(in_shop(app, &["seed", "--products", "5"], "").status.code(), Some(0));
        assert_eq!(user.get("/api/products/").await.json().as_array().unwrap().len(), 305);
        let staff = app.create_staff("sam").await;
        let next = serde_json::json!({"name": "next", "price": 1, "category_name": "Tea"});
        assert_eq!(staff.post("/api/products/", next).await.json()["id"], 306, "ids go on where the seed ended");
    }
    assert_eq!(lists[0].body, lists[1].body);
    let tags: usize = lists[0].json().as_array().unwrap().iter().map(|p| p["tags"].as_array().unwrap().len()).sum();
    assert!((450..750).contains(&tags), "{tags}");
}

#[tokio::test]
async fn bulk_seeding_restores_indexes_and_triggers() {
    let app = TestApp::spawn().await;
    let schema = "select string_agg(pg_get_constraintdef(oid) || conname, ' ' order by conname)
                       || (select string_agg(indexdef, ' ' order by indexdef) from pg_indexes where schemaname = 'public')
                    from pg_constraint where connamespace = 'public'::regnamespace";
    let before: String = app.query_scalar(schema).await;
    let seeded = in_shop(&app, &["seed", "--products", "20000"], "");
    assert_eq!(seeded.status.code(), Some(0), "{}", said(&seeded));
    assert_eq!(app.query_scalar::<String>(schema).await, before);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 20_000);
}

#[tokio::test]
async fn export_command_writes_file() {
    let app = TestApp::spawn().await;
    app.seed_products(1000).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("products.xlsx");
    let output = in_shop(&app, &["export", "-o", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut workbook: Xlsx<_> = calamine::open_workbook(&file).unwrap();
    assert_eq!(workbook.worksheet_range("Products").unwrap().height(), 1001);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    let nowhere = in_shop(&app, &["export", "-o", "/nowhere/products.xlsx"], "");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(!said(&nowhere).contains("503"), "no HTTP at a terminal: {}", said(&nowhere));
    let streamed = in_shop(&app, &["export", "-o", "-"], "").stdout;
    assert_eq!(streamed, std::fs::read(&file).unwrap());
    // what is no file is not replaced by one, and a link stays one
    let link = folder.path().join("link.xlsx");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(in_shop(&app, &["export", "-o", link.to_str().unwrap()], "").status.success());
    assert!(link.is_symlink() && !file.is_symlink());
    assert!(in_shop(&app, &["export", "-o", "/dev/null"], "").status.success());
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[tokio::test]
async fn import_command_reads_file() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for file in [path("p.xlsx"), path("p.csv")] {
        assert!(in_shop(&app, &["export", "-o", &file], "").status.success());
        let output = in_shop(&app, &["import", &file], "");
        assert_eq!(said(&output), "done: 0 created, 0 updated, 3 unchanged, 0 skipped\n");
    }
    let file = path("changes.csv");
    std::fs::write(&file, "Name,Category,Price,ID\nNew,Sport,5,\nProduct 2,Sport,7,2\nBad,Sport,,\n").unwrap();
    let output = in_shop(&app, &["import", &file], "");
    assert_eq!(output.status.code(), Some(1));
    let words = said(&output);
    assert!(words.contains("row 4: {\"price\":[\"A valid number is required.\"]}"), "{words}");
    assert!(words.contains("refused: 0 created, 0 updated, 0 unchanged, 3 skipped"), "{words}");
    let output = in_shop(&app, &["import", "--dry-run", "--on-error=skip", "--json", &file], "");
    assert!(output.status.success());
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["created"], &told["updated"], &told["skipped"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 3, "nothing was done yet");
    let output = in_shop(&app, &["import", "--on-error=skip", &file], "");
    let words = said(&output);
    assert!(words.contains("done: 1 created, 1 updated, 0 unchanged, 1 skipped"), "{words}");
    assert_eq!(app.query_scalar::<String>("select price::text from products where id = 2").await, "7.00");
    assert_eq!(in_shop(&app, &["import", &path("none.csv")], "").status.code(), Some(1));
    assert_eq!(in_shop(&app, &["import", "--on-error=guess", &file], "").status.code(), Some(2));
}

#[tokio::test]
async fn check_reports_missing_parts() {
    let app = TestApp::spawn().await;
    let check = |more: &[&str]| {
        let mut check = command(&["check"]);
        check
            .args(more)
            .env("DATABASE_URL", app.database_url())
            .env("REDIS_URL", required_env("REDIS_URL"))
            .env("JWT_SECRET", JWT_SECRET);
        finished(check, "")
    };
    let good = check(&[]);
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    let bad = check(&["--redis-url", "redis://127.0.0.1:1", "--export-dir", "/nowhere"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(said(&bad).contains("FAIL shared cache") && said(&bad).contains("FAIL export folder"), "{}", said(&bad));
    let findings: serde_json::Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert!(findings.as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{findings}");
    app.batch_execute("alter table products disable trigger bump_version").await;
    assert!(said(&check(&[])).contains("FAIL triggers: disabled"), "{}", said(&check(&[])));
    app.batch_execute("alter table products enable trigger bump_version").await;
    app.batch_execute("delete from refinery_schema_history where version = 3").await;
    assert!(said(&check(&[])).contains("FAIL schema: lacks V3__catalogue"));
}

#[tokio::test]
async fn serve_prints_addresses_and_stops_at_sigterm() {
    let app = TestApp::spawn().await;
    let mut serve = command(&["serve", "--migrate"]);
    serve
        .env("DATABASE_URL", app.database_url())
        .env("JWT_SECRET", JWT_SECRET)
        .env("LISTEN_ADDR", "127.0.0.1:0")
        .env("ADMIN_ADDR", "127.0.0.1:0");
    let mut server = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("an address").unwrap();
        if let Some(address) = line.strip_prefix("listening on http://") {
            break address.to_owned();
        }
    };
    let caller = crate::harness::TestClient::new(address.parse().unwrap());
    assert_eq!(caller.get("/readyz").await.status, 200);
    assert_eq!(
        caller.with_header("authorization", "Bearer sec.re.t").get("/api/me/?password=hidden").await.status,
        401
    );
    let healthy = finished(command(&["healthcheck", "--listen-addr", &address]), "");
    assert_eq!(healthy.status.code(), Some(0), "{}", said(&healthy));

    let pid = rustix::process::Pid::from_raw(server.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = server.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8_lossy(&output.stderr);
    let line = log.lines().find(|line| line.contains("/api/me/")).expect("one line a request");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON, away from a terminal");
    assert_eq!((&line["status"], &line["method"], &line["route"]), (&401.into(), &"GET".into(), &"/api/me/".into()));
    assert!(!log.contains("sec.re.t") && !log.contains("hidden"), "{log}");
    assert_eq!(finished(command(&["healthcheck", "--listen-addr", &address]), "").status.code(), Some(1));
}

#[tokio::test]
async fn large_exports_and_lists_use_bounded_memory() {
    let app = TestApp::spawn().await;
    let token = app.create_user("ann").await.token().to_owned();
    assert_eq!(in_shop(&app, &["seed", "--products", "150000"], "").status.code(), Some(0));
    // a list of 33 MB that is streamed, not kept
    let server = Process::serve(&app, &["--cache-entry-bytes", "1000000"]);
    let user = crate::harness::TestClient::new(server.address).with_token(&token);
    assert_eq!(user.get("/api/me/").await.status, 200);
    let idle = server.memory_kib("VmRSS");
    for path in ["/api/products/export/", "/api/products/"] {
        let response = user.get(path).await;
        assert!(response.status == 200 && response.body.len() > 5_000_000, "{path}: {}", response.body.len());
        let over_idle = server.memory_kib("VmHWM") - idle;
        assert!(over_idle < 64 * 1024, "{path}: {over_idle} KiB over idle");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_process_revalidates_before_serving_stale() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let token = app.create_user("ann").await.token().to_owned();
    let server = Process::serve(&app, &[]);
    let user = crate::harness::TestClient::new(server.address).with_token(&token);
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (user, stop) = (user.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut reads = 0;
                while !stop.load(SeqCst) {
                    let response = user.get("/api/products/").await;
                    assert_eq!(response.status, 200, "{}", response.text());
                    assert!(
                        !response.header("cache-status").ends_with("detail=stale"),
                        "{}",
                        response.header("cache-status")
                    );
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for pause in [500, 2050, 3000] {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        server.signal(rustix::process::Signal::STOP);
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        app.execute("update products set name = $1", &[&format!("during {pause}")]).await;
        server.signal(rustix::process::Signal::CONT);
        let shown = user.get("/api/products/").await;
        assert!(shown.text().contains(&format!("during {pause}")), "{}", shown.text());
    }
    stop.store(true, SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 10);
    }
}

#[test]
fn help_routes_and_completions_print() {
    let help = said(&finished(command(&["serve", "--help"]), ""));
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
        "SESSION_TTL",
        "RATE_LIMIT",
        "TRUSTED_PROXIES",
        "DB_POOL_SIZE",
        "MAX_CONNECTIONS",
        "MAX_BODY_BYTES",
        "LOG_FORMAT",
        "RUST_LOG",
    ] {
        assert!(help.contains(&format!("[env: {variable}")), "{variable}");
    }
    assert!(help.contains("Signals:") && help.contains("Examples:\n  testshop serve --migrate"), "{help}");
    assert!(!help.contains('\x1b'), "colours are for terminals");
    let routes = finished(command(&["routes", "--json"]), "").stdout;
    let routes: serde_json::Value = serde_json::from_slice(&routes).unwrap();
    assert_eq!(routes[0], serde_json::json!({"method": "POST", "path": "/api/register/", "access": "anyone"}));
    let document: serde_json::Value = serde_json::from_slice(&finished(command(&["openapi"]), "").stdout).unwrap();
    assert_eq!(document, testshop::docs::document());
    let routes = said(&finished(command(&["routes"]), ""));
    assert!(routes.contains("DELETE  /api/products/{id}/      staff"), "{routes}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(said(&finished(command(&["completions", shell]), "")).contains("create-admin"), "{shell}");
    }
}

#[tokio::test]
async fn serving_role_can_create_accounts_and_demo_data_repeatedly() {
    let app = TestApp::spawn().await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret of a test\n").unwrap();
    let serving = crate::harness::as_serving_role(app.database_url());
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("DATABASE_URL", &serving).env("PBKDF2_ITERATIONS", "1000");
        let output = finished(command, "");
        (output.status.code(), said(&output))
    };
    let admin = ["create-admin", "--username=staff", "--email=staff@example.com", "--if-missing"];
    let from_file = format!("--password-file={}", password.display());
    let admin: Vec<&str> = admin.into_iter().chain([from_file.as_str()]).collect();
    let (code, words) = run(&admin);
    assert_eq!(code, Some(0), "{words}");
    let (code, words) = run(&admin);
    assert!(code == Some(0) && words.contains("is there already"), "{words}");
    let seed = ["seed", "--products=12000", "--users=2", &from_file];
    let (code, words) = run(&seed);
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(app.login("user2").await.get("/api/products/12000/").await.status, 200);
    assert_eq!(app.login("staff").await.get("/api/me/").await.json()["is_staff"], true);

    let (code, words) = run(&["seed", "--products=0", "--users=1", "--password-file=/nowhere"]);
    assert!(code == Some(1) && words.contains("/nowhere"), "{words}");
}

#[test]
fn secrets_are_generated_once_and_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let run = |more: &[&str]| {
        let output = finished(command(&[&["secrets", "--dir", &path], more].concat()), "");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let told = run(&[]);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (owner, jwt, redis) = (read("db/owner_password"), read("api/jwt_secret"), read("api/redis_password"));
    assert!(jwt.len() >= 32 && owner.len() >= 32 && owner != jwt && !told.contains(&jwt), "{told}");
    assert_eq!(read("owner/database_url"), format!("postgres://testshop:{owner}@db:5432/testshop"));
    assert_eq!(read("owner/api_database_url"), read("api/database_url"));
    assert!(!read("api/database_url").contains(&owner), "whoever serves does not know the owner's");
    assert!(read("cache/users.acl").contains(&format!(">{redis} ")));
    assert!(read("api/pooled_database_url").contains("@pooler:6432/"));
    assert_eq!(run(&["--print", "demo/user_password"]).trim(), read("demo/user_password"));

    // what is there stays; what was lost is drawn again, and everything that speaks of it follows
    run(&[]);
    assert_eq!((read("db/owner_password"), read("api/jwt_secret")), (owner, jwt.clone()));
    std::fs::remove_file(folder.path().join("api/database_password")).unwrap();
    run(&[]);
    assert!(read("owner/api_database_url").contains(&read("api/database_password")));

    // another secret verifies, then signs, then is alone; a step out of turn is refused
    let refused = |more: &[&str]| finished(command(&[&["secrets", "--dir", &path], more].concat()), "").status.code();
    assert_eq!((refused(&["--jwt", "turn"]), refused(&["--jwt", "retire"])), (Some(1), Some(1)));
    run(&["--jwt", "announce"]);
    let (first, second) = read("api/jwt_secret").split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(first == jwt && second.len() >= 32 && second != jwt);
    assert_eq!(refused(&["--jwt", "announce"]), Some(1));
    run(&["--jwt", "turn"]);
    assert_eq!(read("api/jwt_secret"), format!("{second},{first}"));
    run(&["--jwt", "retire"]);
    assert_eq!(read("api/jwt_secret"), second);

    let before = read("api/redis_password");
    run(&["--renew", "api/redis_password"]);
    assert!(read("api/redis_password") != before && !read("cache/users.acl").contains(&before));
    assert_eq!(refused(&["--renew", "../passwd"]), Some(1));

    let output = finished(command(&["secrets", "--dir", "/proc/nowhere"]), "");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}
