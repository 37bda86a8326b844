//! TLS connections to PostgreSQL and Redis: what each mode verifies.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testshop::db::{ConnInfo, Database, DatabaseSettings};

use crate::harness::{
    ReservedPort, Services, TestAppBuilder, as_serving_role, connect, host_and_port, wait_until, with_database,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Returns a new certificate authority.
fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a certificate for the host `localhost` and its key, as PEM.
fn certificate(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A temporary directory that the user of the servers can read.
struct SharedDir(tempfile::TempDir);

impl SharedDir {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn via_localhost(url: &str) -> String {
    url.replacen("127.0.0.1", "localhost", 1)
}

/// Connects and returns whether the connection is encrypted.
async fn is_encrypted(url: &str) -> Result<bool, String> {
    let (conninfo, statement_timeout) = (ConnInfo::primary(url)?, Duration::from_secs(5));
    let database = Database::new(&DatabaseSettings { conninfo, pool_size: 1, statement_timeout });
    let client = database.dedicated().await.map_err(|failure| failure.to_string())?;
    let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    Ok(row.map_err(|error| error.to_string())?.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_tls_follows_sslmode() {
    let services = Services::up("tls");
    let dir = SharedDir::new();
    let (trusted, other) = (authority("trusted"), authority("other"));
    let (trusted_file, other_file) = (dir.file("trusted.pem", &trusted.pem()), dir.file("other.pem", &other.pem()));
    let url = via_localhost(&services.database_url);

    // a server without TLS: modes that require it fail, modes that prefer it connect without
    assert_eq!(is_encrypted(&url).await, Ok(false));
    assert_eq!(is_encrypted(&format!("{url}?sslmode=disable")).await, Ok(false));
    let error = is_encrypted(&format!("{url}?sslmode=require")).await.unwrap_err();
    assert!(error.contains("does not support TLS"), "{error}");

    // PostgreSQL requires files of its own user with mode 0600, so the server process writes them
    let admin = connect(&services.database_url).await;
    let (pem, key) = certificate(&trusted);
    for (name, text) in [("server.crt", &pem), ("server.key", &key)] {
        let text = text.replace('\n', "\\n");
        let write = format!("copy (select '') to program 'umask 077; cat > /dev/null; printf %b \"{text}\" > {name}'");
        admin.batch_execute(&write).await.unwrap();
    }
    let enabled = admin.batch_execute("alter system set ssl = on").await;
    let is_unsupported =
        |error: &tokio_postgres::Error| error.as_db_error().is_some_and(|error| error.message().contains("this build"));
    if enabled.as_ref().is_err_and(is_unsupported) {
        // the build from PyPI has no TLS; those of Debian and of the official images have
        eprintln!("SKIPPED: this PostgreSQL was built without TLS");
        return;
    }
    enabled.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    wait_until("the server accepts TLS", async || is_encrypted(&url).await == Ok(true)).await;

    let roots = |file: &PathBuf| format!("sslrootcert={}", file.display());
    let at_address = url.replacen("localhost", "127.0.0.1", 1);
    let (trusted, other) = (roots(&trusted_file), roots(&other_file));
    for (url, parameters) in [
        (&url, String::new()),
        (&url, "sslmode=require".to_owned()),
        (&url, format!("sslmode=require&{trusted}")),
        (&url, format!("sslmode=verify-ca&{trusted}")),
        // the address is not a name in the certificate
        (&at_address, format!("sslmode=verify-ca&{trusted}")),
        (&url, format!("sslmode=verify-full&{trusted}")),
    ] {
        assert_eq!(is_encrypted(&format!("{url}?{parameters}")).await, Ok(true), "{parameters}");
    }
    assert_eq!(is_encrypted(&format!("{url}?sslmode=disable")).await, Ok(false));
    for (url, parameters) in [
        (&url, format!("sslmode=require&{other}")),
        (&url, format!("sslmode=verify-ca&{other}")),
        (&url, format!("sslmode=verify-full&{other}")),
        // the authority is not among the roots of the system
        (&url, "sslmode=verify-full".to_owned()),
        (&at_address, format!("sslmode=verify-full&{trusted}")),
    ] {
        let error = is_encrypted(&format!("{url}?{parameters}")).await.unwrap_err();
        assert!(error.contains("certificate"), "{parameters}: {error}");
    }

    // all connections of a server: those of the version readers and of the pool
    let app = TestAppBuilder::default().on_server(&services.database_url).spawn().await;
    let serving_url = via_localhost(&as_serving_role(&with_database(&services.database_url, app.database_name())));
    let server = app.start_instance_with("database-url", format!("{serving_url}?sslmode=verify-full&{trusted}")).await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await.on_instance(server.address);
    for path in ["/api/products/", "/api/products/export/", "/api/products/1/", "/readyz"] {
        assert_eq!(user.get(path).await.status, 200, "{path}");
    }
    let encrypted: i64 = app
        .query_scalar(
            "select count(*) from pg_stat_activity join pg_stat_ssl using (pid)
              where datname = current_database() and ssl and usename ~ '_api$'",
        )
        .await;
    assert!(encrypted >= 2, "{encrypted} encrypted connections");
    drop((server, app));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_tls_verifies_certificate() {
    let services = Services::redis("redis-tls");
    let dir = SharedDir::new();
    let (trusted, other) = (authority("trusted"), authority("other"));
    let (trusted_file, other_file) = (dir.file("trusted.pem", &trusted.pem()), dir.file("other.pem", &other.pem()));
    let (pem, key) = certificate(&trusted);
    let (pem, key) = (dir.file("redis.crt", &pem), dir.file("redis.key", &key));
    let mut admin = redis::Client::open(&*services.redis_url).unwrap().get_connection().unwrap();
    let tls_port = ReservedPort::new();
    let mut config_set = redis::cmd("CONFIG");
    config_set.arg("SET").arg("tls-cert-file").arg(pem.to_str()).arg("tls-key-file").arg(key.to_str());
    config_set
        .arg("tls-ca-cert-file")
        .arg(trusted_file.to_str())
        .arg("tls-auth-clients")
        .arg("no")
        .arg("tls-port")
        .arg(tls_port.port());
    let outcome = config_set.query::<()>(&mut admin);
    if outcome.as_ref().is_err_and(|error| error.to_string().contains("Unknown option")) {
        // the build from PyPI has no TLS; those of Debian and of the official images have
        eprintln!("SKIPPED: this Redis was built without TLS");
        return;
    }
    outcome.unwrap();
    let url = services.redis_url.replacen("redis://", "rediss://", 1);
    let url = url.replacen(host_and_port(&services.redis_url), &format!("localhost:{}", tls_port.port()), 1);

    // starts a server with this CA file; returns the state of its cache and the number of calls to Redis
    let cache_state_and_calls = async |ca_file: Option<&PathBuf>| {
        let mut builder = TestAppBuilder::default().with("redis-url", &url);
        if let Some(file) = ca_file {
            builder = builder.with("redis-ca-file", file.display());
        }
        let app = builder.spawn().await;
        app.seed_products(3).await;
        let list = app.create_user("ann").await.get("/api/products/").await;
        assert_eq!(list.status, 200, "requests succeed without Redis");
        let ready = app.anonymous().get("/readyz").await.json();
        (ready["cache"].as_str().unwrap().to_owned(), app.metric("testshop_redis_calls_total").await)
    };
    let (state, calls) = cache_state_and_calls(Some(&trusted_file)).await;
    assert!(state == "ok" && calls > 0.0, "{state}, {calls} calls");
    assert_eq!(cache_state_and_calls(Some(&other_file)).await, ("down".to_owned(), 0.0), "not signed by the CA file");
    assert_eq!(cache_state_and_calls(None).await, ("down".to_owned(), 0.0), "not signed by a root of the system");
}
