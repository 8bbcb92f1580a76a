// Runs SQL files on a real Apache Flink inside this JVM and prints what their SELECTs answer.
//
//   FlinkOracle [--changelog] [--batch] FILE.sql...
//
// Each file is a session of its own, announced by "-- FILE". A SELECT prints its final table: the changelog is played
// into a multiset, whose rows come out sorted as "[a, b]". With --changelog every change comes out as it arrives: "+I[a, b]".
// INSERTs and statement sets are waited for. The first statement that fails ends its file: "error: ..." and exit status 1.
//
// What makes the answer repeatable: one subtask for each operator, and a watermark after every row, so that a row
// is late or not by its place in the file alone.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.ResultKind;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;

public class FlinkOracle {
  private static final Pattern SET = Pattern.compile("SET\\s+'([^']*)'\\s*=\\s*'((?:[^']|'')*)'", Pattern.CASE_INSENSITIVE);

  public static void main(String[] args) throws Exception {
    boolean changelog = false, batch = false, failed = false;
    List<Path> files = new ArrayList<>();
    for (String arg : args) {
      switch (arg) {
        case "--changelog" -> changelog = true;
        case "--batch" -> batch = true;
        default -> files.add(Path.of(arg));
      }
    }
    for (Path file : files) {
      System.out.println("-- " + file);
      TableEnvironment session = TableEnvironment.create(settings(batch));
      String statement = "";
      try {
        for (String s : statements(Files.readString(file))) run(session, statement = s, changelog);
      } catch (Exception e) {
        failed = true;
        System.out.println("error: " + why(e));
        System.err.println(file + ": this statement failed:\n" + statement);
      }
    }
    System.out.flush();
    System.exit(failed ? 1 : 0); // Flink leaves threads behind that would keep the JVM alive
  }

  private static EnvironmentSettings settings(boolean batch) {
    Map<String, String> options = new TreeMap<>(Map.of(
        "execution.target", "local",
        "parallelism.default", "1",
        "table.local-time-zone", "UTC",
        "pipeline.auto-watermark-interval", "0",
        "restart-strategy.type", "none", // a failing job should say so, not start again for ever
        "rest.address", "127.0.0.1",
        "rest.bind-address", "127.0.0.1",
        "rest.port", "0",
        "taskmanager.numberOfTaskSlots", "8"));
    if (batch) options.put("execution.runtime-mode", "BATCH");
    return EnvironmentSettings.newInstance().withConfiguration(Configuration.fromMap(options)).build();
  }

  private static void run(TableEnvironment session, String statement, boolean changelog) throws Exception {
    Matcher set = SET.matcher(statement);
    if (set.matches()) {
      session.getConfig().set(set.group(1), set.group(2).replace("''", "'"));
      return;
    }
    TableResult result = session.executeSql(statement);
    String first = statement.split("\\s+", 2)[0].toUpperCase(Locale.ROOT);
    if (first.equals("INSERT") || first.equals("EXECUTE")) {
      result.await();
      return;
    }
    if (result.getResultKind() != ResultKind.SUCCESS_WITH_CONTENT) return;
    Map<String, Integer> table = new TreeMap<>();
    try (CloseableIterator<Row> changes = result.collect()) {
      while (changes.hasNext()) {
        Row row = changes.next();
        if (changelog) {
          System.out.println(row);
          continue;
        }
        boolean gone = row.getKind() == RowKind.DELETE || row.getKind() == RowKind.UPDATE_BEFORE;
        row.setKind(RowKind.INSERT);
        String text = row.toString().substring(RowKind.INSERT.shortString().length());
        table.merge(text, gone ? -1 : 1, Integer::sum);
      }
    }
    table.forEach((row, times) -> {
      if (times < 0) throw new IllegalStateException("more of " + row + " was taken back than was sent");
      for (int i = 0; i < times; i++) System.out.println(row);
    });
  }

  /** Cuts at each ';' that ends a statement: not in quotes, not in comments, not between BEGIN and END. */
  static List<String> statements(String sql) {
    List<String> found = new ArrayList<>();
    StringBuilder now = new StringBuilder();
    int i = 0;
    while (i < sql.length()) {
      char c = sql.charAt(i);
      int end = i + 1;
      if (c == '\'' || c == '`') {
        end = sql.indexOf(c, i + 1) + 1;
      } else if (sql.startsWith("--", i)) {
        end = sql.indexOf('\n', i);
        i = end < 0 ? sql.length() : end; // the line end stays
        continue;
      } else if (sql.startsWith("/*", i) && !sql.startsWith("/*+", i)) {
        end = sql.indexOf("*/", i) + 2;
        i = end < 2 ? sql.length() : end;
        now.append(' ');
        continue;
      } else if (c == ';' && !insideSet(now.toString())) {
        add(found, now);
        i = end;
        continue;
      }
      if (end <= i) end = sql.length(); // an open quote: Flink will say so
      now.append(sql, i, end);
      i = end;
    }
    add(found, now);
    return found;
  }

  private static boolean insideSet(String statement) {
    String s = statement.strip().toUpperCase(Locale.ROOT);
    return s.matches("(?s)(EXPLAIN|EXECUTE)\\b.*\\bSTATEMENT\\s+SET\\s+BEGIN\\b.*") && !s.matches("(?s).*;\\s*END");
  }

  private static void add(List<String> found, StringBuilder statement) {
    String s = statement.toString().strip();
    if (!s.isEmpty()) found.add(s);
    statement.setLength(0);
  }

  /** The innermost cause says what is wrong; those around it say only that something is. */
  private static String why(Throwable e) {
    while (e.getCause() != null) e = e.getCause();
    return e.getClass().getSimpleName() + ": " + String.valueOf(e.getMessage()).lines().findFirst().orElse("");
  }
}
