//! `seed`, `export` and `import`.

use calamine::{Reader, Xlsx};
use serde_json::{Value, json};

use super::{output_text, run, run_on};
use crate::harness::{PASSWORD, TestApp, as_serving_role, process::command};

#[tokio::test]
async fn seed_is_deterministic_and_visible_in_next_list() {
    let apps = [TestApp::spawn().await, TestApp::spawn().await];
    let mut lists = Vec::new();
    for app in &apps {
        let seeded = run_on(app, &["seed", "--products", "300", "--users", "2"], PASSWORD);
        assert_eq!(seeded.status.code(), Some(0), "{}", output_text(&seeded));
        let user = app.login("user2").await;
        lists.push(user.get("/api/products/").await);
        assert_eq!(run_on(app, &["seed", "--products", "5", "--if-empty"], "").status.code(), Some(0));
        assert_eq!(user.get("/api/products/").await.json().as_array().unwrap().len(), 300);
        assert_eq!(run_on(app, &["seed", "--products", "5"], "").status.code(), Some(0));
        assert_eq!(user.get("/api/products/").await.json().as_array().unwrap().len(), 305);
        let staff = app.create_staff("sam").await;
        let next = json!({"name": "next", "price": 1, "category_name": "Tea"});
        assert_eq!(staff.post("/api/products/", next).await.json()["id"], 306, "new ids follow those of the seed");
    }
    assert_eq!(lists[0].body, lists[1].body);
    let tags: usize = lists[0].json().as_array().unwrap().iter().map(|p| p["tags"].as_array().unwrap().len()).sum();
    assert!((450..750).contains(&tags), "{tags}");
}

#[tokio::test]
async fn bulk_seeding_restores_indexes_and_triggers() {
    let app = TestApp::spawn().await;
    let schema = "select string_agg(pg_get_constraintdef(oid) || conname, ' ' order by conname)
                       || (select string_agg(indexdef, ' ' order by indexdef)
                             from pg_indexes where schemaname = 'public')
                    from pg_constraint where connamespace = 'public'::regnamespace";
    let before: String = app.query_scalar(schema).await;
    let seeded = run_on(&app, &["seed", "--products", "20000"], "");
    assert_eq!(seeded.status.code(), Some(0), "{}", output_text(&seeded));
    assert_eq!(app.query_scalar::<String>(schema).await, before);
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 20_000);
}

#[tokio::test]
async fn export_command_writes_file() {
    let app = TestApp::spawn().await;
    app.seed_products(1000).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("products.xlsx");
    let output = run_on(&app, &["export", "-o", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
    let mut workbook: Xlsx<_> = calamine::open_workbook(&file).unwrap();
    assert_eq!(workbook.worksheet_range("Products").unwrap().height(), 1001);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "temporary files are removed");
    let unwritable = run_on(&app, &["export", "-o", "/nowhere/products.xlsx"], "");
    assert_eq!(unwritable.status.code(), Some(1));
    let text = output_text(&unwritable);
    assert!(!text.contains("503"), "the message has no HTTP status: {text}");
    let streamed = run_on(&app, &["export", "-o", "-"], "").stdout;
    assert_eq!(streamed, std::fs::read(&file).unwrap());
    // symbolic links and device files are written to, not replaced
    let link = dir.path().join("link.xlsx");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(run_on(&app, &["export", "-o", link.to_str().unwrap()], "").status.success());
    assert!(link.is_symlink() && !file.is_symlink());
    assert!(run_on(&app, &["export", "-o", "/dev/null"], "").status.success());
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
}

#[tokio::test]
async fn import_command_reads_file() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for file in [path("p.xlsx"), path("p.csv")] {
        assert!(run_on(&app, &["export", "-o", &file], "").status.success());
        let output = run_on(&app, &["import", &file], "");
        assert_eq!(output_text(&output), "done: 0 created, 0 updated, 3 unchanged, 0 skipped\n");
    }
    let file = path("changes.csv");
    std::fs::write(&file, "Name,Category,Price,ID\nNew,Sport,5,\nProduct 2,Sport,7,2\nBad,Sport,,\n").unwrap();
    let output = run_on(&app, &["import", &file], "");
    assert_eq!(output.status.code(), Some(1));
    let text = output_text(&output);
    assert!(text.contains("row 4: {\"price\":[\"A valid number is required.\"]}"), "{text}");
    assert!(text.contains("rejected: 0 created, 0 updated, 0 unchanged, 3 skipped"), "{text}");
    let output = run_on(&app, &["import", "--dry-run", "--on-error=skip", "--json", &file], "");
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["created"], &report["updated"], &report["skipped"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(app.query_scalar::<i64>("select count(*) from products").await, 3, "a dry run writes nothing");
    let output = run_on(&app, &["import", "--on-error=skip", &file], "");
    let text = output_text(&output);
    assert!(text.contains("done: 1 created, 1 updated, 0 unchanged, 1 skipped"), "{text}");
    assert_eq!(app.query_scalar::<String>("select price::text from products where id = 2").await, "7.00");
    let file = path("new.csv");
    std::fs::write(&file, "ID,Name,Category,Price\n40,Kettle,Kitchen,5\n").unwrap();
    assert_eq!(run_on(&app, &["import", &file], "").status.code(), Some(1));
    let restore = ["import", "--create-categories", "--missing-id", "create", &file];
    let expected = "done: 1 created, 0 updated, 0 unchanged, 0 skipped, categories created: 1\n";
    assert_eq!(output_text(&run_on(&app, &restore, "")), expected);
    std::fs::write(&file, "ID,Stock\n40,7\n").unwrap();
    assert_eq!(run_on(&app, &["import", &file], "").status.code(), Some(1));
    let ignoring = output_text(&run_on(&app, &["import", "--unknown-columns", "ignore", &file], ""));
    assert_eq!(ignoring, "done: 0 created, 0 updated, 1 unchanged, 0 skipped\n");
    std::fs::write(&file, b"ID,Name\n40,\xd7\xe0\xe9\xed\xe8\xea\n").unwrap();
    assert_eq!(run_on(&app, &["import", &file], "").status.code(), Some(1));
    assert_eq!(run_on(&app, &["import", "--charset", "klingon", &file], "").status.code(), Some(2));
    output_text(&run_on(&app, &["import", "--charset", "windows-1251", &file], ""));
    assert_eq!(app.query_scalar::<String>("select name from products where id = 40").await, "Чайник");
    assert_eq!(run_on(&app, &["import", &path("none.csv")], "").status.code(), Some(1));
    assert_eq!(run_on(&app, &["import", "--on-error=guess", &file], "").status.code(), Some(2));
}

#[tokio::test]
async fn serving_role_can_create_accounts_and_demo_data_repeatedly() {
    let app = TestApp::spawn().await;
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let serving = as_serving_role(app.database_url());
    let run_as_serving_role = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("DATABASE_URL", &serving).env("PBKDF2_ITERATIONS", "1000");
        let output = run(command, "");
        (output.status.code(), output_text(&output))
    };
    let admin = ["create-admin", "--username=staff", "--email=staff@example.com", "--if-missing"];
    let from_file = format!("--password-file={}", password.display());
    let admin: Vec<&str> = admin.into_iter().chain([from_file.as_str()]).collect();
    let (code, text) = run_as_serving_role(&admin);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run_as_serving_role(&admin);
    assert!(code == Some(0) && text.contains("already exists"), "{text}");
    let seed = ["seed", "--products=12000", "--users=2", &from_file];
    let (code, text) = run_as_serving_role(&seed);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(app.login("user2").await.get("/api/products/12000/").await.status, 200);
    assert_eq!(app.login("staff").await.get("/api/me/").await.json()["is_staff"], true);

    let (code, text) = run_as_serving_role(&["seed", "--products=0", "--users=1", "--password-file=/nowhere"]);
    assert!(code == Some(1) && text.contains("/nowhere"), "{text}");
}
