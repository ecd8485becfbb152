/// The calling thread's last error message.
public enum LastError {
  public static func set(_ message: String) {}
}
