//! Encrypted lines to PostgreSQL and Redis: what each mode promises, against servers that speak TLS.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testshop::db::{ConnInfo, Database, DatabaseSettings};

use crate::harness::{ReservedPort, Services, TestAppBuilder, as_serving_role, connect, host_and_port, with_database};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for the host `localhost`, as PEM.
fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A folder that the servers' own user can read too.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn at_localhost(url: &str) -> String {
    url.replacen("127.0.0.1", "localhost", 1)
}

/// Whether a connection can be had, and whether it is encrypted.
async fn encrypted(url: &str) -> Result<bool, String> {
    let (address, seconds) = (ConnInfo::primary(url)?, std::time::Duration::from_secs(5));
    let database = Database::new(&DatabaseSettings { address, pool_size: 1, statement_timeout: seconds });
    let client = database.dedicated().await.map_err(|failure| failure.to_string())?;
    let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    Ok(row.map_err(|error| error.to_string())?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_tls_follows_sslmode() {
    let services = Services::up("tls");
    let folder = Folder::new();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (ours_file, theirs_file) = (folder.file("ours.pem", &ours.pem()), folder.file("theirs.pem", &theirs.pem()));
    let url = at_localhost(&services.database_url);

    // a server without TLS: whoever wants it has no connection, whoever would like it has one
    assert_eq!(encrypted(&url).await, Ok(false));
    assert_eq!(encrypted(&format!("{url}?sslmode=disable")).await, Ok(false));
    let refused = encrypted(&format!("{url}?sslmode=require")).await.unwrap_err();
    assert!(refused.contains("does not support TLS"), "{refused}");

    // the files are written by the server itself, with the owner and the mode that it asks for
    let admin = connect(&services.database_url).await;
    let (pem, key) = certificate(&ours);
    for (name, text) in [("server.crt", &pem), ("server.key", &key)] {
        let text = text.replace('\n', "\\n");
        let written =
            format!("copy (select '') to program 'umask 077; cat > /dev/null; printf %b \"{text}\" > {name}'");
        admin.batch_execute(&written).await.unwrap();
    }
    let turned_on = admin.batch_execute("alter system set ssl = on").await;
    if turned_on
        .as_ref()
        .is_err_and(|error| error.as_db_error().is_some_and(|told| told.message().contains("this build")))
    {
        // a build without TLS (PyPI's is one) has nothing to test; Debian's and the official images have it
        eprintln!("SKIPPED: this PostgreSQL was built without TLS");
        return;
    }
    turned_on.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    crate::harness::wait_until("the server speaks TLS", async || encrypted(&url).await == Ok(true)).await;

    let roots = |file: &PathBuf| format!("sslrootcert={}", file.display());
    let at_address = url.replacen("localhost", "127.0.0.1", 1);
    let (ours, theirs) = (roots(&ours_file), roots(&theirs_file));
    for (url, parameters) in [
        (&url, String::new()),
        (&url, "sslmode=require".to_owned()),
        (&url, format!("sslmode=require&{ours}")),
        (&url, format!("sslmode=verify-ca&{ours}")),
        // another name than the certificate's
        (&at_address, format!("sslmode=verify-ca&{ours}")),
        (&url, format!("sslmode=verify-full&{ours}")),
    ] {
        assert_eq!(encrypted(&format!("{url}?{parameters}")).await, Ok(true), "{parameters}");
    }
    assert_eq!(encrypted(&format!("{url}?sslmode=disable")).await, Ok(false));
    for (url, parameters) in [
        (&url, format!("sslmode=require&{theirs}")),
        (&url, format!("sslmode=verify-ca&{theirs}")),
        (&url, format!("sslmode=verify-full&{theirs}")),
        // nobody whom this machine trusts
        (&url, "sslmode=verify-full".to_owned()),
        (&at_address, format!("sslmode=verify-full&{ours}")),
    ] {
        let refused = encrypted(&format!("{url}?{parameters}")).await.unwrap_err();
        assert!(refused.contains("certificate"), "{parameters}: {refused}");
    }

    // and a whole shop over it
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    let safe = at_localhost(&as_serving_role(&with_database(&services.database_url, app.database_name())));
    let server = app.start_instance_with("database-url", format!("{safe}?sslmode=verify-full&{ours}")).await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await.on_instance(server.address);
    for path in ["/api/products/", "/api/products/export/", "/api/products/1/", "/readyz"] {
        assert_eq!(user.get(path).await.status, 200, "{path}");
    }
    let open: i64 = app
        .query_scalar(
            "select count(*) from pg_stat_activity join pg_stat_ssl using (pid)
              where datname = current_database() and ssl and usename ~ '_api$'",
        )
        .await;
    assert!(open >= 2, "{open} encrypted connections: the readers of versions, and the pool's");
    drop((server, app));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_tls_verifies_certificate() {
    let services = Services::redis("redis-tls");
    let folder = Folder::new();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (ours_file, theirs_file) = (folder.file("ours.pem", &ours.pem()), folder.file("theirs.pem", &theirs.pem()));
    let (pem, key) = certificate(&ours);
    let (pem, key) = (folder.file("redis.crt", &pem), folder.file("redis.key", &key));
    let mut admin = redis::Client::open(&*services.redis_url).unwrap().get_connection().unwrap();
    let tls_port = ReservedPort::new();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("tls-cert-file").arg(pem.to_str()).arg("tls-key-file").arg(key.to_str());
    set.arg("tls-ca-cert-file")
        .arg(ours_file.to_str())
        .arg("tls-auth-clients")
        .arg("no")
        .arg("tls-port")
        .arg(tls_port.port());
    let outcome = set.query::<()>(&mut admin);
    if outcome.as_ref().is_err_and(|error| error.to_string().contains("Unknown option")) {
        // a build without TLS (PyPI's is one) has nothing to test; Debian's and the official images have it
        eprintln!("SKIPPED: this Redis was built without TLS");
        return;
    }
    outcome.unwrap();
    let plain = host_and_port(&services.redis_url);
    let url = services.redis_url.replacen("redis://", "rediss://", 1).replacen(
        plain,
        &format!("localhost:{}", tls_port.port()),
        1,
    );

    let told = async |roots: Option<&PathBuf>| {
        let mut plan = TestAppBuilder::default().with("redis-url", &url);
        if let Some(file) = roots {
            plan = plan.with("redis-ca-file", file.display());
        }
        let app = plan.spawn().await;
        app.seed_products(3).await;
        let list = app.create_user("ann").await.get("/api/products/").await;
        assert_eq!(list.status, 200, "no fault of Redis costs an answer");
        let ready = app.anonymous().get("/readyz").await.json();
        (ready["cache"].as_str().unwrap().to_owned(), app.metric("testshop_redis_calls_total").await)
    };
    let (state, calls) = told(Some(&ours_file)).await;
    assert!(state == "ok" && calls > 0.0, "{state}, {calls} calls");
    assert_eq!(told(Some(&theirs_file)).await, ("down".to_owned(), 0.0), "signed by nobody it was told to trust");
    assert_eq!(told(None).await, ("down".to_owned(), 0.0), "signed by nobody this machine trusts");
}
